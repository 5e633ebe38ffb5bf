"""Shards that share their work and are killed at any moment."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from worker_testing import make_requests, make_spec

from shard_worker.engines.echo import EchoEngine
from shard_worker.layout import ShardLayout
from shard_worker.parts import read_parts
from shard_worker.rows import Answer, Message, Request, answers_from_bytes, requests_to_bytes
from shard_worker.run import run_shard
from shard_worker.signals import StopRequest

pytestmark = pytest.mark.integration

SEEDS = 200
FINGERPRINT = "f" * 32
FORKS = multiprocessing.get_context("fork")  # the imports of a new interpreter take a second


class CountingEngine(EchoEngine):
    """Writes down each request that it is given."""

    journal: int

    def add(self, request: Request) -> None:
        os.write(self.journal, f"{request.request_id}\n".encode())
        super().add(request)


def work(layout: ShardLayout, attempt: int, journal: Path) -> None:
    CountingEngine.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    from shard_worker.engines import echo

    echo.EchoEngine = CountingEngine  # type: ignore[misc]
    run_shard(layout, attempt, StopRequest())


@dataclass
class SharedRun:
    """A run of several shards, each in a process of its own."""

    folder: Path
    size: int
    attempts: dict[int, int] = field(default_factory=dict)
    processes: dict[int, BaseProcess] = field(default_factory=dict)

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def layout(self, rank: int) -> ShardLayout:
        return ShardLayout(self.folder, rank, self.size)

    def write(self, requests: list[Request], model: Path, balance: str, **options: object) -> None:
        (self.folder / "inputs").mkdir(exist_ok=True)
        spec = make_spec(model, engine={"options": options}, world_size=self.size, balance=balance)
        spec["flush"] = {"rows": 3, "seconds": 0.02}
        (self.folder / "spec.json").write_text(json.dumps(spec))
        for rank in range(self.size):
            rows = requests_to_bytes(requests[rank :: self.size])
            self.layout(rank).inputs.write_bytes(rows)

    def start(self, rank: int) -> BaseProcess:
        self.attempts[rank] = self.attempts.get(rank, 0) + 1
        process = FORKS.Process(
            target=work, args=(self.layout(rank), self.attempts[rank], self.journal)
        )
        process.start()
        self.processes[rank] = process
        return process

    def finish(self) -> None:
        """Begin the next attempt of each shard that was killed, until all are done."""
        while self.processes:
            rank, process = next(iter(self.processes.items()))
            process.join(60)
            del self.processes[rank]
            if process.exitcode:
                assert process.exitcode == -signal.SIGKILL
                self.start(rank)

    def answers(self) -> list[Answer]:
        found: list[Answer] = []
        for rank in range(self.size):
            found += answers_from_bytes(self.layout(rank).output.read_bytes())[0]
        return found

    def begun(self) -> Counter[str]:
        return Counter(self.journal.read_text().split())


@pytest.fixture
def no_process_left() -> Iterator[None]:
    yield
    for process in multiprocessing.active_children():
        process.kill()


@pytest.mark.parametrize("decade", range(SEEDS // 10))
def test_after_kills_at_any_moment_every_answer_is_there_once(
    decade: int, tmp_path: Path, model: Path, no_process_left: None
) -> None:
    for seed in range(10 * decade, 10 * decade + 10):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        size = chance.randint(1, 4)
        run = SharedRun(folder, size)
        requests = make_requests(chance.randint(size, 60))
        run.write(
            requests,
            model,
            chance.choice(["steal", "steal", "static"]),
            seconds_per_request=0.004,
            concurrency=chance.randint(1, 6),
        )
        for rank in range(size):
            run.start(rank)
        in_flight = 0
        kills = chance.randint(1, 3)
        for _ in range(kills):
            time.sleep(chance.uniform(0, 0.08))  # the moment is what is drawn
            rank = chance.choice(list(run.processes))
            victim = run.processes.pop(rank)
            victim.kill()
            victim.join(10)
            safe = {
                key for at in range(size) for key in read_parts(run.layout(at).parts, FINGERPRINT)
            }
            in_flight += len(set(run.begun()) - safe) if run.journal.exists() else 0
            run.start(rank)
        run.finish()
        ids = [answer.request_id for answer in run.answers()]
        assert sorted(ids) == [request.request_id for request in requests], f"seed {seed}"
        parts = folder.glob("shards/*/parts/part-*.parquet")
        assert sum(pq.read_metadata(part).num_rows for part in parts) == len(requests)
        repeated = run.begun().total() - len(requests)
        assert repeated <= in_flight, f"seed {seed}"


@pytest.mark.parametrize("guilty", [{"7"}, {"3", "28"}, set(map(str, range(5)))])
def test_a_request_that_crashes_the_engine_gets_an_error_and_the_others_their_answers(
    guilty: set[str], tmp_path: Path, model: Path, no_process_left: None
) -> None:
    requests = [
        replace(one, messages=(Message(role="user", content=f"{text} poison"),))
        if (text := one.messages[-1]["content"].split()[2]) in guilty
        else one
        for one in make_requests(40)
    ]
    run = SharedRun(tmp_path, 2)
    run.write(requests, model, "steal", concurrency=16, crash_on="poison")
    for rank in range(2):
        run.start(rank)
    run.finish()
    answers = {answer.request_id: answer for answer in run.answers()}
    assert len(answers) == len(requests)
    for request in requests:
        answer = answers[request.request_id]
        if "poison" in request.messages[-1]["content"]:
            assert answer.error is not None
            assert "the engine crashes on this request: the echo engine was told" in answer.error
        else:
            assert answer.text == request.messages[-1]["content"]


def test_an_engine_that_never_answers_is_given_up_and_no_request_is_blamed(
    tmp_path: Path, model: Path, no_process_left: None
) -> None:
    run = SharedRun(tmp_path, 1)
    run.write(make_requests(40), model, "steal", concurrency=16, crash_on=" ")
    process = run.start(0)
    process.join(60)
    assert process.exitcode == 1  # the exception; the command line gives it a code
    assert read_parts(run.layout(0).parts, FINGERPRINT) == {}
    assert set(run.begun().values()) <= {1, 2, 3}
    assert max(run.begun().values()) == 3  # twice together and then alone


def texts(run: SharedRun) -> dict[str, str | None]:
    return {answer.request_id: answer.text for answer in run.answers()}


def test_a_run_that_is_cut_anew_makes_only_what_is_missing(
    tmp_path: Path, model: Path, no_process_left: None
) -> None:
    requests = [replace(one, cost=float(9 - at % 10)) for at, one in enumerate(make_requests(40))]
    run = SharedRun(tmp_path, 4)
    run.write(requests, model, "steal", concurrency=4)
    run.start(0).join(60)  # finds all of them alone: nobody else has begun
    assert run.begun().total() == len(requests)
    again = SharedRun(tmp_path, 3, attempts=dict.fromkeys(range(3), 1))
    again.write(requests, model, "steal", concurrency=4)
    for rank in range(3):
        again.start(rank)
    again.finish()
    assert len(texts(again)) == len(requests)
    assert again.begun().total() == len(requests)


def test_a_shard_that_starts_late_finds_its_work_done(
    tmp_path: Path, model: Path, no_process_left: None
) -> None:
    requests = make_requests(30)
    run = SharedRun(tmp_path, 3)
    run.write(requests, model, "steal", concurrency=8)
    for rank in (0, 1):
        run.start(rank)
    run.finish()
    assert run.begun().total() == len(requests)
    run.start(2)
    run.finish()
    manifest = json.loads(run.layout(2).manifest.read_text())
    assert manifest["rows"] == 0
    assert manifest["blocks"] == []
    assert manifest["timings"]["load_s"] == 0
    assert len(texts(run)) == len(requests)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("balance", ["static", "steal"])
def test_any_number_of_shards_gives_the_same_answers(
    size: int, balance: str, tmp_path: Path, model: Path, no_process_left: None
) -> None:
    requests = make_requests(24)
    run = SharedRun(tmp_path, size)
    run.write(requests, model, balance, concurrency=2)
    for rank in range(size):
        run.start(rank)
    run.finish()
    assert texts(run) == {one.request_id: one.messages[-1]["content"] for one in requests}
