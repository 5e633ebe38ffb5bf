"""Kill it, stop it, start it twice: finished answers stay, missing ones are made once."""

import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from worker_testing import Run

from shard_worker.contract import violations
from shard_worker.parts import read_parts
from shard_worker.rows import Answer, Request, answers_from_bytes

pytestmark = pytest.mark.unit

EchoRun = Callable[..., list[Request]]
MANY = 2000
SLOW = {"seconds_per_request": 0.05, "concurrency": 2}
"""With MANY requests far longer than any test waits, so that it is always met at work."""


def kept(run: Run) -> dict[str, Answer]:
    return read_parts(run.layout.parts, "f" * 32)


def wait_for_parts(run: Run, process: subprocess.Popen[str]) -> dict[str, Answer]:
    while not (found := kept(run)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return found


def output(run: Run) -> list[Answer]:
    return answers_from_bytes(run.layout.output.read_bytes())[0]


def test_after_a_kill_the_next_attempt_makes_only_what_is_missing(
    run: Run, echo_run: EchoRun
) -> None:
    requests = echo_run(MANY, **SLOW)
    process = run.start(attempt=1)
    wait_for_parts(run, process)
    process.kill()
    process.wait()
    survived = set(kept(run))
    assert 0 < len(survived) < len(requests)
    echo_run(MANY)
    code, said = run.finish(attempt=2)
    assert code == 0
    assert f"{len(survived)} answered before" in said
    answers = output(run)
    assert [answer.request_id for answer in answers] == [r.request_id for r in requests]
    assert {a.request_id for a in answers if a.attempt == 1} == survived
    assert run.manifest()["attempt"] == 2


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_keeps_what_is_finished_and_says_resumable(
    run: Run, echo_run: EchoRun, name: str
) -> None:
    requests = echo_run(MANY, **SLOW)
    process = run.start()
    wait_for_parts(run, process)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 75
    assert f"interrupted by {name}" in said
    survived = set(kept(run))
    assert 0 < len(survived) < len(requests)
    progress = run.progress()
    assert violations("progress", progress) == []
    assert progress["phase"] == "failed"
    assert progress["done"] == len(survived)
    assert not run.layout.manifest.exists()
    echo_run(MANY)
    assert run.finish(attempt=2)[0] == 0
    assert len({answer.request_id for answer in output(run)}) == len(requests)


def test_a_signal_while_the_engine_loads_ends_at_once(run: Run, echo_run: EchoRun) -> None:
    echo_run(3, load_seconds=60)
    process = run.start()
    while not run.layout.progress.exists() or run.progress()["phase"] != "loading":
        assert process.poll() is None
        time.sleep(0.01)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 75, said
    assert time.monotonic() - began < 10
    assert "Traceback" not in said


def test_of_two_processes_with_one_attempt_only_one_works(run: Run, echo_run: EchoRun) -> None:
    echo_run(MANY, **SLOW)
    both = [run.start(), run.start()]
    while all(process.poll() is None for process in both):
        time.sleep(0.01)
    loser, owner = sorted(both, key=lambda process: process.poll() is None)
    said = loser.communicate()[1]
    assert loser.returncode == 76, said
    assert "is held by process" in said
    assert str(owner.pid) in said
    wait_for_parts(run, owner)
    assert owner.poll() is None


def test_an_attempt_that_starts_after_a_later_one_goes_away(run: Run, echo_run: EchoRun) -> None:
    echo_run(MANY, **SLOW)
    later = run.start(attempt=2)
    wait_for_parts(run, later)
    code, said = run.finish(attempt=1)
    assert code == 76
    assert "attempt 2 of shard 0 has begun" in said
    assert later.poll() is None


def test_an_attempt_that_was_taken_for_lost_stops_when_a_later_one_begins(
    run: Run, echo_run: EchoRun
) -> None:
    echo_run(MANY, **SLOW)
    orphan = run.start(attempt=1)
    wait_for_parts(run, orphan)
    run.layout.claim(2).write_text("{}")
    said = orphan.communicate(timeout=20)[1]
    assert orphan.returncode == 76, said
    assert "attempt 2 of shard 0 has begun" in said
    assert not run.layout.output.exists()


def test_an_attempt_that_was_given_up_before_it_started_does_not_begin(
    run: Run, echo_run: EchoRun
) -> None:
    echo_run(3)
    run.layout.record(1).parent.mkdir(parents=True)
    run.layout.record(1).write_text("{}")
    code, said = run.finish(attempt=1)
    assert code == 76
    assert "attempt 1 of shard 0 was given up" in said
    assert run.finish(attempt=2)[0] == 0


def test_a_job_that_slurm_requeued_goes_on_after_itself(run: Run, echo_run: EchoRun) -> None:
    echo_run(MANY, **SLOW)
    process = run.start(env={"SLURM_JOB_ID": "5"})
    wait_for_parts(run, process)
    process.kill()
    process.wait()
    echo_run(MANY)
    assert run.finish(env={"SLURM_JOB_ID": "6", "SLURM_RESTART_COUNT": "1"})[0] == 76
    assert run.finish(env={"SLURM_JOB_ID": "5"})[0] == 76
    assert run.finish(env={"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "1"})[0] == 0
    assert run.manifest()["rows"] == MANY


def test_what_a_killed_process_left_half_written_is_removed(run: Run, echo_run: EchoRun) -> None:
    echo_run(3)
    run.layout.parts.mkdir(parents=True)
    left = run.layout.parts / ".part-000001-a1-00.parquet.host.1.tmp"
    left.write_bytes(b"half")
    assert run.finish()[0] == 0
    assert not left.exists()


def test_progress_is_valid_whenever_it_is_read_and_fresh_while_the_engine_loads(
    run: Run, echo_run: EchoRun
) -> None:
    echo_run(10, load_seconds=1.5, seconds_per_request=0.1, concurrency=1)
    process = run.start()
    seen = {}
    while process.poll() is None:
        if run.layout.progress.exists():
            progress = run.progress()
            assert violations("progress", progress) == []
            seen[progress["updated_at"]] = progress
        time.sleep(0.01)
    assert process.returncode == 0
    phases = [progress["phase"] for progress in seen.values()]
    assert phases.count("loading") >= 3  # 1.5 s of loading, refreshed at least every 0.4 s
    assert phases[-1] == "done"
    counts = [progress["done"] for progress in seen.values()]
    assert counts == sorted(counts)
    assert max(p["tokens_per_s"] for p in seen.values()) > 0
