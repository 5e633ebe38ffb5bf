"""One shard from input to manifest, without a model."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_testing import SOURCE, Run, make_requests, make_spec

from shard_worker.contract import violations
from shard_worker.errors import Exit
from shard_worker.parts import PartWriter, read_parts
from shard_worker.rows import OUTPUT_SCHEMA, Request, answers_from_bytes

pytestmark = pytest.mark.unit

EchoRun = Callable[..., list[Request]]
Here = Callable[..., int]


def test_every_request_is_answered_once_in_input_order(
    run: Run, here: Here, echo_run: EchoRun
) -> None:
    requests = echo_run(23)
    assert here() == 0
    answers, metadata = answers_from_bytes(run.layout.output.read_bytes())
    assert [answer.request_id for answer in answers] == [r.request_id for r in requests]
    assert [answer.text for answer in answers] == [r.messages[-1]["content"] for r in requests]
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert metadata["fingerprint"] == "f" * 32


def test_the_output_has_the_contract_s_columns_and_types(
    run: Run, here: Here, echo_run: EchoRun
) -> None:
    import pyarrow.parquet as pq

    echo_run(3)
    here()
    schema = pq.read_schema(run.layout.output)
    assert schema.equals(OUTPUT_SCHEMA)
    assert [str(field.type) for field in schema] == [
        *("string", "string", "string", "int32", "string", "int32", "int32", "string", "double"),
        *("timestamp[us, tz=UTC]", "string", "int32", "int32"),
    ]


def test_the_manifest_validates_and_names_the_output_by_its_checksum(
    run: Run, echo_run: EchoRun
) -> None:
    echo_run(5)
    run.finish(
        env={
            "SLURM_JOB_ID": "77",
            "SLURM_ARRAY_JOB_ID": "70",
            "SLURM_ARRAY_TASK_ID": "0",
            "SLURM_CLUSTER_NAME": "local",
            "SLURMD_NODENAME": "node7",
        }
    )
    manifest = run.manifest()
    assert violations("manifest", manifest) == []
    assert manifest["sha256"] == hashlib.sha256(run.layout.output.read_bytes()).hexdigest()
    assert (manifest["rows"], manifest["errors"]) == (5, 0)
    assert manifest["output_tokens"] == 5 * 5
    assert manifest["node"] == "node7"
    assert manifest["slurm"] == {
        "job_id": "77",
        "array_job_id": "70",
        "array_task_id": "0",
        "cluster": "local",
    }
    assert run.progress()["phase"] == "done"
    assert run.progress()["done"] == run.progress()["total"] == 5


def test_a_finished_shard_is_left_alone(
    run: Run, echo_run: EchoRun, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    echo_run(4)
    here()
    before = run.layout.manifest.read_bytes()
    assert here(attempt=2) == 0
    assert "finished already" in capsys.readouterr().err
    assert run.layout.manifest.read_bytes() == before
    assert not run.layout.claim(2).exists()


@pytest.mark.parametrize("damage", ["output", "manifest", "fingerprint"])
def test_a_manifest_that_does_not_hold_is_made_again(
    run: Run, here: Here, model: Path, echo_run: EchoRun, damage: str
) -> None:
    requests = echo_run(4)
    here()
    if damage == "output":
        run.layout.output.write_bytes(b"torn")
    elif damage == "manifest":
        run.layout.manifest.write_text("{")
    else:
        run.write(make_spec(model, fingerprint="e" * 32), requests)
    assert here(attempt=2) == 0
    manifest = run.manifest()
    assert manifest["attempt"] == 2
    assert manifest["sha256"] == hashlib.sha256(run.layout.output.read_bytes()).hexdigest()
    made_by = {a.attempt for a in answers_from_bytes(run.layout.output.read_bytes())[0]}
    assert made_by == ({2} if damage == "fingerprint" else {1})


def test_a_shard_without_requests_is_finished_at_once(run: Run, here: Here, model: Path) -> None:
    run.write(make_spec(model), [])
    assert here() == 0
    assert run.manifest()["rows"] == 0


def test_answers_are_safe_before_the_shard_ends(run: Run, model: Path) -> None:
    run.write(
        make_spec(model, engine={"options": {"seconds_per_request": 0.05, "concurrency": 1}}),
        make_requests(40),
    )
    process = run.start()
    while not read_parts(run.layout.parts, "f" * 32):
        assert process.poll() is None
    assert not run.layout.output.exists()


def test_the_worker_runs_from_a_zip(run: Run, echo_run: EchoRun, tmp_path: Path) -> None:
    archive = tmp_path / "shard_worker.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for file in sorted(SOURCE.rglob("*")):
            if file.suffix in {".py", ".json"}:
                bundle.write(file, file.relative_to(SOURCE))
    echo_run(3)
    code, said = run.finish(path=archive)
    assert code == 0, said
    assert run.manifest()["rows"] == 3


def test_no_socket_is_opened(
    run: Run, echo_run: EchoRun, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    import socket

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("a socket was opened")

    echo_run(3)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert here() == 0
    assert run.manifest()["rows"] == 3


def test_a_repeated_message_is_echoed_up_to_max_tokens(run: Run, here: Here, model: Path) -> None:
    run.write(make_spec(model), make_requests(2, max_tokens=3))
    here()
    answers = answers_from_bytes(run.layout.output.read_bytes())[0]
    assert [answer.text for answer in answers] == ["what is 0", "what is 1"]
    assert {answer.finish_reason for answer in answers} == {"length"}


def test_a_fixed_answer_can_be_asked_for(run: Run, here: Here, echo_run: EchoRun) -> None:
    echo_run(2, answer="\\boxed{7}")
    here()
    answers = answers_from_bytes(run.layout.output.read_bytes())[0]
    assert {answer.text for answer in answers} == {"\\boxed{7}"}


def test_progress_says_why_a_shard_failed(run: Run, here: Here, model: Path) -> None:
    run.write(make_spec(model / "gone"), make_requests(2))
    assert here() == 2
    progress = run.progress()
    assert violations("progress", progress) == []
    assert progress["phase"] == "failed"
    assert "does not exist" in json.dumps(progress["message"])


def test_an_attempt_whose_unfinished_file_a_later_one_tidied_up_says_that_it_was_replaced(
    run: Run,
    echo_run: EchoRun,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    echo_run(4)
    claim = run.layout.folder / "claim-2"
    replace = Path.replace

    def tidied(path: Path, target: Path) -> Path:
        if target.name.startswith("part-") and not claim.exists():
            path.unlink()
            claim.write_text("{}")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", tidied)
    monkeypatch.setattr("shard_worker.parts.PartWriter.flush_if_due", PartWriter.flush)
    assert here() == Exit.CLAIM_HELD
    assert "attempt 1 ends here" in capfd.readouterr().err
    assert not run.layout.manifest.exists()
