"""Several shards on real vLLM, and an engine that dies under its worker."""

import os
import signal
from pathlib import Path

import psutil
import pytest
from worker_testing import Run, make_requests, make_spec

from shard_worker.parts import read_parts
from shard_worker.rows import Answer, Request, answers_from_bytes

pytestmark = pytest.mark.integration

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def run_shards(
    folder: Path, python: str, model: Path, requests: list[Request], *, size: int, balance: str
) -> dict[str, Answer]:
    folder.mkdir()
    runs = [Run(folder, python, rank, size) for rank in range(size)]
    spec = make_spec(
        model,
        engine={"name": "vllm", "options": {"max_num_seqs": 4}},
        world_size=size,
        balance=balance,
    )
    for run in runs:
        run.write(spec, requests[run.rank :: size])
    processes = []
    for run in runs:
        with (folder / f"said-{run.rank}.log").open("w") as log:
            processes.append(run.start(env=ENVIRONMENT, log=log))
    for run, process in zip(runs, processes, strict=True):
        code = process.wait(timeout=300)
        assert code == 0, (folder / f"said-{run.rank}.log").read_text()
    found = [one for run in runs for one in answers_from_bytes(run.layout.output.read_bytes())[0]]
    assert len(found) == len(requests)
    return {answer.request_id: answer for answer in found}


def test_any_number_of_shards_gives_the_same_answers(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    requests = make_requests(48, temperature=1.0, max_tokens=48)
    alone = run_shards(
        tmp_path / "1", worker_python, tiny_model, requests, size=1, balance="static"
    )
    for size, balance in ((3, "static"), (8, "steal")):
        folder = tmp_path / str(size)
        shared = run_shards(folder, worker_python, tiny_model, requests, size=size, balance=balance)
        for key, answer in alone.items():
            assert shared[key].text == answer.text, (size, balance)
            assert shared[key].output_tokens == answer.output_tokens


def test_an_engine_that_is_killed_is_started_again_and_nothing_is_lost(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    requests = make_requests(400, temperature=1.0, max_tokens=200)
    run = Run(tmp_path, worker_python)
    run.write(make_spec(tiny_model, engine={"name": "vllm"}), requests)
    said = tmp_path / "said.log"
    with said.open("w") as log:
        process = run.start(env={**ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, log=log)
    while not read_parts(run.layout.parts, "f" * 32):
        assert process.poll() is None, said.read_text()
        os.sched_yield()
    core = next(one for one in psutil.Process(process.pid).children() if "EngineCore" in one.name())
    core.send_signal(signal.SIGKILL)
    assert process.wait(timeout=120) == 0, said.read_text()
    answers = answers_from_bytes(run.layout.output.read_bytes())[0]
    assert [answer.request_id for answer in answers] == [one.request_id for one in requests]
    assert not any(answer.error for answer in answers)
    assert "it is started again (1 of at most 24)" in said.read_text()
