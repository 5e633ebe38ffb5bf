"""Whether a shard gets another attempt depends on why the last one ended."""

import pytest

from nightshard.clusters.attempts import AttemptRecord, RetryLimits, bad_nodes, decide
from nightshard.clusters.slurm import ShardState

pytestmark = pytest.mark.unit

MANY = RetryLimits(max_attempts=100)


def ended(state: ShardState, attempt: int = 1, **changes: object) -> AttemptRecord:
    values: dict[str, object] = {
        "rank": 3,
        "attempt": attempt,
        "job_id": "57_3",
        "job_name": f"ns-run-1-a{attempt}",
        "state": state.value,
        "node": "node2",
        "elapsed_s": 600,
        "gpus": 1,
        "message": "it ended",
        "ended_at": "2026-11-25T01:00:00+00:00",
    }
    return AttemptRecord.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("state", "changes", "words"),
    [
        (ShardState.ENDED_WELL, {"done": 10}, "done"),
        (ShardState.ENDED_WELL, {"damaged": True}, "again"),
        (ShardState.PREEMPTED, {}, "again"),
        (ShardState.NODE_FAILURE, {}, "again without node2"),
        (ShardState.UNKNOWN, {}, "again"),
        (ShardState.TIME_LIMIT, {"done": 4}, "again"),
        (ShardState.TIME_LIMIT, {}, "stop: it added no answer within its time limit"),
        (ShardState.OUT_OF_MEMORY, {"done": 4}, "stop: the same would run out of memory again"),
        (ShardState.CANCELLED, {"done": 4}, "stop: somebody cancelled it"),
        (ShardState.REJECTED, {}, "stop: Slurm refuses it"),
        (ShardState.FAILED, {"exit_code": 0}, "again"),
        (ShardState.FAILED, {"exit_code": 75}, "again"),
        (ShardState.FAILED, {"exit_code": 76}, "again"),
        (ShardState.FAILED, {"exit_code": 2}, "stop: the same would fail again"),
        (ShardState.FAILED, {"exit_code": 1, "done": 4}, "stop: the same would fail again"),
        (ShardState.FAILED, {"exit_code": 4, "done": 4}, "again"),
        (ShardState.FAILED, {"exit_code": 4}, "stop: it added no answer before it crashed"),
        (ShardState.FAILED, {"exit_code": 137, "done": 4}, "again"),
        (ShardState.FAILED, {"done": 4}, "again"),
        (ShardState.FAILED, {}, "stop: it added no answer before it crashed"),
    ],
    ids=lambda value: value.value if isinstance(value, ShardState) else str(value),
)
def test_the_cause_decides(state: ShardState, changes: dict[str, object], words: str) -> None:
    decision = decide([ended(state, **changes)], MANY)
    assert decision.words == words
    assert decision.again == words.startswith("again")


def test_a_time_limit_without_new_answers_ends_a_shard_that_went_on_before() -> None:
    first = ended(ShardState.TIME_LIMIT, done=4)
    second = ended(ShardState.TIME_LIMIT, attempt=2, done=4)
    third = second.model_copy(update={"done": 5})
    assert not decide([first, second], MANY).again
    assert decide([first, third], MANY).again


def test_a_profile_caps_the_attempts() -> None:
    history = [ended(ShardState.PREEMPTED, attempt) for attempt in (1, 2)]
    assert decide(history, RetryLimits(max_attempts=3)).again
    capped = decide(history, RetryLimits(max_attempts=2))
    assert capped.words == "stop: 2 attempts are the most that the profile allows"


def test_a_profile_caps_the_hours_that_a_shard_may_run() -> None:
    history = [ended(ShardState.PREEMPTED, attempt, elapsed_s=3600) for attempt in (1, 2)]
    assert decide(history, RetryLimits(max_attempts=9, max_hours=2.5)).again
    capped = decide(history, RetryLimits(max_attempts=9, max_hours=2))
    assert capped.words == "stop: its attempts ran 2.0 h, and the profile allows 2 h"


def test_a_person_who_clears_the_task_gets_all_attempts_anew() -> None:
    before = [ended(ShardState.PREEMPTED, attempt) for attempt in (1, 2, 3, 4)]
    after = ended(ShardState.PREEMPTED, attempt=5, by_try=2)
    assert not decide(before, RetryLimits()).again
    assert decide([*before, after], RetryLimits(), asked_by_try=2).again


def test_all_nodes_that_failed_are_left_out_the_latest_first() -> None:
    history = [
        ended(ShardState.NODE_FAILURE, node="node2"),
        ended(ShardState.PREEMPTED, attempt=2, node="node3"),
        ended(ShardState.NODE_FAILURE, attempt=3, node="node4"),
        ended(ShardState.NODE_FAILURE, attempt=4, node="node2"),
    ]
    assert bad_nodes(history) == ("node2", "node4")


def test_a_record_survives_its_file() -> None:
    record = ended(ShardState.NODE_FAILURE, done=7, again=True, decision="again without node2")
    assert AttemptRecord.read(record.to_bytes()) == record
    assert record.to_bytes().count(b"\n") == 1
