"""What a sweep measured, and what is said of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from support.recorded import recorded_run

from nightshard.results.records import RunRecord, ShardRecord
from nightshard.results.sweep import measure, observations, recommended, table, words

pytestmark = pytest.mark.unit

START = datetime(2026, 11, 1, 1, tzinfo=UTC)
QUEUE, LOAD, WORK, TOKENS = 30, 20, 480, 96_000


def run_of(shards: int, *, work: float = WORK) -> RunRecord:
    """A run whose shards wait 30 s, load for 20 s and share 480 s of work."""
    each = work / shards
    rows = tuple(
        ShardRecord(
            rank=rank,
            attempt=1,
            state="COMPLETED",
            output_tokens=TOKENS // shards,
            import_s=LOAD / 2,
            load_s=LOAD / 2,
            generate_s=each,
            total_s=LOAD + each,
            started_at=START + timedelta(seconds=QUEUE),
            finished_at=START + timedelta(seconds=QUEUE + LOAD + each),
        )
        for rank in range(shards)
    )
    made = recorded_run(f"run-{shards}", model="org/a", day=1, value=0.5)
    wall = QUEUE + LOAD + each + 5
    return replace(
        made, num_shards=shards, shards=rows, attempts=(), started_at=START, wall_seconds=wall
    )


POINTS = [one for count in (1, 2, 4, 8) if (one := measure(run_of(count))) is not None]


def test_a_run_is_measured_in_time_gpu_time_queue_start_up_and_utilisation() -> None:
    one = measure(run_of(4))
    assert one is not None
    assert one.shards == 4
    assert one.wall_seconds == QUEUE + LOAD + WORK / 4 + 5
    assert one.span_seconds == LOAD + WORK / 4
    assert one.queue_seconds == QUEUE
    assert one.gpu_seconds == 4 * LOAD + WORK
    assert one.startup_share == pytest.approx(4 * LOAD / (4 * LOAD + WORK))
    assert one.tokens_per_gpu_second == pytest.approx(TOKENS / (4 * LOAD + WORK))


def test_a_run_whose_shards_do_not_all_tell_is_left_out() -> None:
    whole = run_of(4)
    assert measure(replace(whole, shards=whole.shards[:3])) is None
    untimed = replace(whole.shards[0], started_at=None)
    assert measure(replace(whole, shards=(untimed, *whole.shards[1:]))) is None


def test_the_four_points_of_view_and_the_error_of_the_prediction_are_said() -> None:
    said = words(POINTS, 64)
    assert said[0] == "Diminishing returns: not reached; 8 shards still pay in time."
    assert said[1] == "Efficiency: GPU time is least with 1, 500 s; 8 take 1.28 times as much."
    assert "4% of the shards' time with 1 and 25% with 8" in said[2]
    assert "with 8 shards a GPU gives 78% of the tokens per second" in said[3]
    assert "(1: +0%, 2: +0%, 4: +0%, 8: +0%)" in said[4].replace("-0%", "+0%")
    assert said[5].startswith("Recommended shards: ")


def test_one_that_is_said_to_pay_does_and_one_that_is_not_does_not() -> None:
    short = [measure(run_of(count, work=20)) for count in (1, 2)]
    (first, *_) = words([one for one in short if one is not None], 64)
    assert first.startswith("Diminishing returns: from 1 to 2 shards")
    long = [measure(run_of(count, work=48_000)) for count in (1, 2)]
    (first, *_) = words([one for one in long if one is not None], 64)
    assert first == "Diminishing returns: not reached; 2 shards still pay in time."


def test_the_recommendation_keeps_within_the_limit() -> None:
    assert recommended(POINTS, 64)["efficiency"] == 3
    assert recommended(POINTS, 2) == {"efficiency": 2, "balanced": 2, "rush": 2}


def test_the_table_has_a_row_for_each_count() -> None:
    lines = table(POINTS).splitlines()
    assert len(lines) == 2 + len(POINTS)
    assert lines[2] == "| 1 | 8.9 min | 0.139 | 30 s | 4% | 192.0 |"


def test_a_shard_without_timings_of_its_start_does_not_break_the_model() -> None:
    whole = run_of(2)
    bare = tuple(replace(one, import_s=None, load_s=None) for one in whole.shards)
    one = measure(replace(whole, shards=bare))
    assert one is not None
    assert observations([one])[0].startup_seconds is None
