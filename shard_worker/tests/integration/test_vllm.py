"""The worker on real vLLM with a tiny random model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worker_testing import KILL_AFTER, SOURCE, Run, make_requests, make_spec

from shard_worker.contract import violations
from shard_worker.parts import read_parts
from shard_worker.rows import Answer, Message, Request, answers_from_bytes

pytestmark = pytest.mark.integration

LIMIT = 512  # of the tiny model
IN_PROCESS = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
OWN_PROCESSES = {**IN_PROCESS, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}


def say(request: Request, content: str, role: str = "user") -> Request:
    return replace(request, messages=(Message(role=role, content=content),))


LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def no_network() -> list[str]:
    """Return the words that run a command with loopback as its only network."""
    return ["unshare", "-rn", sys.executable, "-c", LOOPBACK_UP]


def can_drop_network() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*no_network(), "true"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    made = make_requests(10, temperature=1.0, max_tokens=24)
    made[1] = say(made[1], "x y z " * 600)
    made[2] = say(made[2], "hello", role="forbidden")
    made[3] = say(made[3], "7 + 5 " * 120)
    made[3] = replace(made[3], sampling=replace(made[3].sampling, max_tokens=400))
    return made


def start(folder: Path, python: str, model: Path, rows: Sequence[Request], **engine: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, python=python)
    run.write(make_spec(model, engine={"name": "vllm", **engine}), rows)
    return run


def answers_of(run: Run) -> dict[str, Answer]:
    found = answers_from_bytes(run.layout.output.read_bytes())[0]
    return {answer.request_id: answer for answer in found}


def outcome(answer: Answer) -> tuple[object, ...]:
    return (answer.text, answer.finish_reason, answer.output_tokens, answer.error)


@pytest.fixture(scope="module")
def batch(
    tmp_path_factory: pytest.TempPathFactory,
    worker_python: str,
    tiny_model: Path,
    requests: list[Request],
) -> tuple[Run, str]:
    run = start(tmp_path_factory.mktemp("batch"), worker_python, tiny_model, requests)
    code, said = run.finish(env=IN_PROCESS, before=no_network() if can_drop_network() else ())
    assert code == 0, said
    return run, said


def test_every_request_is_answered_and_the_manifest_names_versions(
    batch: tuple[Run, str], requests: list[Request]
) -> None:
    run, _ = batch
    assert list(answers_of(run)) == [request.request_id for request in requests]
    manifest = run.manifest()
    assert violations("manifest", manifest) == []
    assert {"vllm", "torch", "transformers", "python", "shard_worker"} <= set(manifest["versions"])
    assert manifest["timings"]["import_s"] > 0
    assert 0 <= manifest["timings"]["compile_s"] < manifest["timings"]["load_s"]
    assert manifest["errors"] == 2


def test_it_works_where_there_is_no_network_at_all(batch: tuple[Run, str]) -> None:
    if not can_drop_network():
        pytest.skip("this kernel or user may not make a network namespace (unshare -rn)")
    run, _ = batch
    assert run.layout.manifest.exists()


def test_a_prompt_that_is_too_long_is_its_own_row_s_error(
    batch: tuple[Run, str], requests: list[Request]
) -> None:
    answer = answers_of(batch[0])[requests[1].request_id]
    assert answer.text is None
    assert answer.finish_reason == "error"
    assert answer.prompt_tokens > LIMIT
    assert answer.error == f"prompt has {answer.prompt_tokens} tokens, the model takes {LIMIT - 1}"


def test_a_chat_that_the_template_refuses_is_its_own_row_s_error(
    batch: tuple[Run, str], requests: list[Request]
) -> None:
    answer = answers_of(batch[0])[requests[2].request_id]
    assert answer.error == "the chat template refuses these messages: no such role"


def test_an_answer_is_cut_where_the_model_ends(
    batch: tuple[Run, str], requests: list[Request]
) -> None:
    answer = answers_of(batch[0])[requests[3].request_id]
    assert LIMIT - 400 < answer.prompt_tokens < LIMIT
    assert answer.prompt_tokens + answer.output_tokens <= LIMIT
    if answer.finish_reason == "length":
        assert answer.prompt_tokens + answer.output_tokens == LIMIT


def test_finish_reasons_agree_with_the_token_counts(
    batch: tuple[Run, str], requests: list[Request]
) -> None:
    for request in requests[4:]:
        answer = answers_of(batch[0])[request.request_id]
        assert answer.finish_reason in {"stop", "length"}
        assert (answer.output_tokens == 24) or answer.finish_reason == "stop"
        assert answer.seconds > 0


def test_a_request_alone_gets_the_answer_that_it_gets_in_a_batch(
    batch: tuple[Run, str],
    requests: list[Request],
    tmp_path: Path,
    worker_python: str,
    tiny_model: Path,
) -> None:
    alone = start(tmp_path, worker_python, tiny_model, [requests[5]])
    code, said = alone.finish(env=IN_PROCESS)
    assert code == 0, said
    key = requests[5].request_id
    assert outcome(answers_of(alone)[key]) == outcome(answers_of(batch[0])[key])
    texts = [answer.text for answer in answers_of(batch[0]).values() if answer.text]
    assert len(set(texts)) > len(texts) // 2  # seeds matter, so equality above says something


def test_the_bos_token_is_not_doubled(worker_python: str, tiny_model: Path) -> None:
    code = f"""
import json
from transformers import AutoTokenizer
from shard_worker.templating import render_prompt
tokenizer = AutoTokenizer.from_pretrained({str(tiny_model)!r})
chat = [{{"role": "user", "content": "7 + 5"}}]
text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
both = render_prompt(tokenizer, chat, {{}}), tokenizer(text).input_ids
print(json.dumps([ids.count(tokenizer.bos_token_id) for ids in both]))
"""
    done = subprocess.run(
        [worker_python, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=KILL_AFTER,
        check=True,
    )
    ours, by_way_of_text = json.loads(done.stdout.splitlines()[-1])
    assert ours == 1
    assert by_way_of_text == 2  # the trap is there, so the line above says something


def test_a_length_beyond_the_model_is_bad_configuration(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    run = start(tmp_path, worker_python, tiny_model, make_requests(1), max_model_len=4096)
    code, said = run.finish(env=IN_PROCESS)
    assert code == 2
    assert f"engine.max_model_len is 4096, but the model takes {LIMIT}" in said


def test_more_prompt_than_one_step_takes_does_not_hurt_seeded_requests(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    rows = [say(r, "7 + 5 " * 40) for r in make_requests(200, temperature=1.0, max_tokens=2)]
    run = start(tmp_path, worker_python, tiny_model, rows)
    code, said = run.finish(env=IN_PROCESS)
    assert code == 0, said
    assert len(answers_of(run)) == len(rows)


def test_vllm_in_its_own_processes_is_interrupted_well_and_goes_on_to_the_same_answers(
    batch: tuple[Run, str],
    requests: list[Request],
    tmp_path: Path,
    worker_python: str,
    tiny_model: Path,
) -> None:
    filler = [
        replace(request, request_id=f"f{index:031x}")
        for index, request in enumerate(make_requests(3000, max_tokens=200, temperature=1.0))
    ]
    run = start(tmp_path, worker_python, tiny_model, [*requests, *filler])
    log = tmp_path / "said.log"
    with log.open("w") as stream:
        process = run.start(env=OWN_PROCESSES, log=stream)
    while len(read_parts(run.layout.parts, "f" * 32)) < len(requests):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=KILL_AFTER) == 75, log.read_text()
    assert "exited unexpectedly" not in log.read_text()
    survived = read_parts(run.layout.parts, "f" * 32)
    run.write(make_spec(tiny_model, engine={"name": "vllm"}), requests)
    code, said = run.finish(attempt=2, env=OWN_PROCESSES)
    assert code == 0, said
    assert "exited unexpectedly" not in said
    before = answers_of(batch[0])
    for key, answer in answers_of(run).items():
        assert outcome(answer) == outcome(before[key])
        assert answer.attempt == (1 if key in survived else 2)


def test_describe_knows_the_model_and_the_engine(worker_python: str, tiny_model: Path) -> None:
    done = subprocess.run(
        [worker_python, "-m", "shard_worker", "describe", "--model", str(tiny_model)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=KILL_AFTER,
        check=True,
    )
    value = json.loads(done.stdout)
    assert value["engine"] == "vllm"
    assert value["engine_version"].startswith("0.3")
    assert value["max_model_len"] == LIMIT
    assert len(value["chat_template_sha256"]) == 64
