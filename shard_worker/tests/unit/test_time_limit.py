"""A shard stops by itself before its job's time limit."""

import time
from collections.abc import Callable

import pytest
from worker_testing import Run

from shard_worker.parts import read_parts
from shard_worker.rows import Request
from shard_worker.slurm import Place

pytestmark = pytest.mark.unit

NOON = 1_790_000_000.0


def place(start: float | None, end: float | None) -> Place:
    times = {"SLURM_JOB_START_TIME": start, "SLURM_JOB_END_TIME": end}
    return Place.from_env({key: f"{value:.0f}" for key, value in times.items() if value})


def test_a_shard_stops_before_its_jobs_limit() -> None:
    left = place(NOON, NOON + 3600).seconds_left(NOON + 600, 60)
    assert left == 3000 - 60


def test_a_short_job_keeps_nine_tenths_of_its_time() -> None:
    assert place(NOON, NOON + 100).seconds_left(NOON, 60) == 90


def test_without_a_limit_nothing_stops_a_shard() -> None:
    assert place(None, None).seconds_left(NOON, 60) is None


@pytest.mark.parametrize("wrong_by", [-7200, 7200])
def test_a_node_whose_clock_is_wrong_by_hours_does_not_stop_a_shard_at_once(wrong_by: int) -> None:
    left = place(NOON, NOON + 3600).seconds_left(NOON + 5 + wrong_by, 60)
    assert left == 3600 - 60


def test_what_was_finished_before_the_limit_is_kept_and_the_end_says_resumable(
    run: Run, echo_run: Callable[..., list[Request]]
) -> None:
    echo_run(500, seconds_per_request=0.2, concurrency=2)
    began = int(time.time())
    limit = {"SLURM_JOB_START_TIME": str(began), "SLURM_JOB_END_TIME": str(began + 3)}
    code, said = run.finish(env=limit)
    assert code == 75
    assert "interrupted by the approach of its time limit" in said
    assert 0 < len(read_parts(run.layout.parts, "f" * 32)) < 500
