"""A bad spec or input gets a sentence, and exit code 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worker_testing import Run, make_requests, make_spec

from shard_worker.contract import violations
from shard_worker.rows import Request, read_requests, requests_to_bytes

pytestmark = pytest.mark.unit


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(spec: dict[str, Any]) -> None:
        *steps, last = path.split(".")
        for step in steps:
            spec = spec[step]
        if value is KeyError:
            del spec[last]
        else:
            spec[last] = value

    return apply


CASES = [
    ("contract_version", 3, "contract_version is 3, but this worker speaks 2"),
    ("engine.dtype", "int4", "engine.dtype is 'int4'; it must be one of auto, float32"),
    (
        "engine.name",
        "mlx",
        "engine.name is 'mlx'; it must be one of vllm, transformers, openai, echo",
    ),
    ("engine.tensor_parallel", 0, "engine.tensor_parallel cannot be used: 0 is less than"),
    ("engine.options", {"sleep": 1}, "engine.options has the unknown key 'sleep'; remove it."),
    ("flush", KeyError, "the document lacks 'flush'; add it."),
    ("colour", "red", "the document has the unknown key 'colour'; remove it."),
    ("model.path", "relative/path", "model.path cannot be used"),
    ("progress_seconds", 0, "progress_seconds cannot be used"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), CASES)
def test_a_bad_spec_ends_with_its_sentence_and_exit_code_2(
    run: Run,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    here: Callable[[], int],
    *,
    path: str,
    value: Any,
    sentence: str,
) -> None:
    spec = make_spec(model)
    change(path, value)(spec)
    run.write(spec, make_requests(2))
    assert here() == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not run.layout.folder.exists()


def test_vllm_options_outside_the_short_list_are_refused(model: Path) -> None:
    spec = make_spec(model, engine={"name": "vllm", "options": {"trust_remote_code": True}})
    assert violations("spec", spec) == [
        "engine.options has the unknown key 'trust_remote_code'; remove it."
    ]
    spec["engine"]["options"] = {"max_num_seqs": 8, "enable_prefix_caching": True}
    assert violations("spec", spec) == []


@pytest.mark.parametrize(
    ("change_arguments", "sentence"),
    [
        ({"rank": 3}, "--rank is 3; it must be from 0 to 0"),
        ({"world_size": 2}, "--world-size is 2, but the spec has 1 shards"),
    ],
)
def test_a_rank_or_world_size_that_does_not_fit_is_refused(
    run: Run,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    here: Callable[[], int],
    *,
    change_arguments: dict[str, int],
    sentence: str,
) -> None:
    run.write(make_spec(model), make_requests(2))
    for name, value in change_arguments.items():
        setattr(run, name, value)
    assert here() == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.unlink(), "does not exist; stage the run again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is not an input of this contract"),
        (
            lambda path: pq.write_table(pa.table({"request_id": ["a"]}), path),
            "is not an input of this contract",
        ),
        (
            lambda path: path.write_bytes(requests_to_bytes(make_requests(1) * 2)),
            "holds request 00000000000000000000000000000000 twice",
        ),
    ],
    ids=["missing", "torn", "columns", "doubled"],
)
def test_a_bad_input_file_ends_with_its_sentence(
    run: Run,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    here: Callable[[], int],
    *,
    damage: Callable[[Path], None],
    sentence: str,
) -> None:
    run.write(make_spec(model), make_requests(2))
    damage(run.layout.inputs)
    assert here() == 2
    assert sentence in capsys.readouterr().err


def test_a_run_folder_without_a_spec_is_named(
    run: Run, capsys: pytest.CaptureFixture[str], here: Callable[[], int]
) -> None:
    assert here() == 2
    assert "spec.json does not exist" in capsys.readouterr().err


def test_requests_survive_the_input_file(run: Run, model: Path) -> None:
    requests: list[Request] = make_requests(3, stop=("\n\n", "END"), temperature=0.7)
    run.write(make_spec(model), requests)
    assert read_requests(run.layout.inputs) == requests


def test_a_full_disk_is_said_in_a_sentence(
    run: Run,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    here: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run.write(make_spec(model), make_requests(2))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shard_worker.parts.write_atomic", full)
    assert here() == 2
    assert "is full; free space and start again" in capsys.readouterr().err
    assert json.loads(run.layout.progress.read_text())["phase"] == "failed"
