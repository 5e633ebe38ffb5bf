"""How a shard's attempts ended, and whether there is another one. Pure.

The control plane alone decides what runs again (``--no-requeue``), by the cause of the end:

=====================  =========================================================================
preempted              again
node failure           again, without that node
interrupted            again (a signal reached the worker first: preemption with a grace time)
gone without a trace   again
damaged output         again
time limit, crash      again if answers were added since the attempt began, else stop
out of memory          stop
cancelled              stop: a person did it
refused, bad input     stop
=====================  =========================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from nightshard.clusters.documents import Count, Document
from nightshard.clusters.slurm import ShardState

ENDED_WELL = 0
INTERRUPTED = 75
CLAIM_HELD = 76
CRASHED = 4
KILLED = range(128, 256)
"""Exit codes of ``shard_worker run``, and 128 plus the number of a signal (POSIX shell)."""

MAX_EXCLUDED = 8
"""Nodes left out at most; a longer list keeps a small cluster from running anything."""


class AttemptRecord(Document):
    """``attempt-N.json``: how one attempt at a shard ended.

    Attributes:
        rank: the shard.
        attempt: from 1.
        job_id: ``<array id>_<index>``.
        job_name: the submission's key.
        state: the cause, a value of :class:`ShardState`.
        damaged: it ended well, but its answers do not have the manifest's checksum.
        exit_code: of the worker, where known.
        node: where it ran.
        elapsed_s: Slurm's run time in seconds, where known.
        gpus: GPUs that it held.
        done: answers on disk when it ended.
        message: one sentence on the end.
        again: another attempt follows.
        decision: what was decided, in words.
        by_try: try of the Airflow task that decided.
        ended_at: control plane's clock, ISO 8601 in UTC.
    """

    rank: Count
    attempt: Annotated[int, Field(ge=1)]
    job_id: str
    job_name: str
    state: str
    damaged: bool = False
    exit_code: int | None = None
    node: str | None = None
    elapsed_s: int | None = None
    gpus: Count = 0
    done: Count = 0
    message: str
    again: bool = False
    decision: str = ""
    by_try: Annotated[int, Field(ge=1)] = 1
    ended_at: str

    def to_bytes(self) -> bytes:
        """Render the file."""
        return (self.model_dump_json() + "\n").encode()


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often a shard may be tried.

    Attributes:
        max_attempts: attempts in all, the first included.
        max_hours: accumulated run time after which no further attempt begins; None is no limit.
    """

    max_attempts: int = 4
    max_hours: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows an attempt.

    Attributes:
        again: another attempt.
        exclude: nodes that it must not use.
        words: for the log, ``again without node2`` or ``stop: …``.
    """

    again: bool
    exclude: tuple[str, ...]
    words: str


def decide(
    attempts: Sequence[AttemptRecord], limits: RetryLimits, *, asked_by_try: int = 1
) -> Decision:
    """Decide what follows the last of a shard's attempts.

    Args:
        attempts: all so far, in order.
        limits: attempts that an earlier try of the Airflow task decided on are not counted: a
            person who clears the task asks for new ones.
        asked_by_try: the Airflow task's try.
    """
    last = attempts[-1]
    if last.state == ShardState.ENDED_WELL and not last.damaged:
        return Decision(again=False, exclude=(), words="done")
    before = attempts[-2].done if len(attempts) > 1 else 0
    obstacle = _obstacle(last, progressed=last.done > before)
    if obstacle is None:
        counted = [one for one in attempts if one.by_try >= asked_by_try]
        obstacle = _used_up(counted, limits)
    if obstacle is not None:
        return Decision(again=False, exclude=(), words=f"stop: {obstacle}")
    exclude = bad_nodes(attempts)
    without = f" without {', '.join(exclude)}" if exclude else ""
    return Decision(again=True, exclude=exclude, words=f"again{without}")


def asked_again(attempts: Sequence[AttemptRecord]) -> Decision:
    """Return what follows when a person asks for another attempt, whatever the cause was."""
    return Decision(
        again=True, exclude=bad_nodes(attempts), words="again: the task was cleared in Airflow"
    )


def bad_nodes(attempts: Sequence[AttemptRecord]) -> tuple[str, ...]:
    """Return the nodes that failed under a shard, the latest first."""
    failed = [
        one.node
        for one in reversed(attempts)
        if one.state == ShardState.NODE_FAILURE and one.node is not None
    ]
    return tuple(dict.fromkeys(failed))[:MAX_EXCLUDED]


# What ended well and shows no valid manifest has a damaged one, or a file system that is very late.
_PASSING_CODES = {ENDED_WELL, INTERRUPTED, CLAIM_HELD}

_STOPS = {
    ShardState.CANCELLED: "somebody cancelled it",
    ShardState.OUT_OF_MEMORY: "the same would run out of memory again",
    ShardState.REJECTED: "Slurm refuses it",
}


def _obstacle(last: AttemptRecord, *, progressed: bool) -> str | None:
    """Say why the cause of the last attempt's end forbids another one."""
    state, code = ShardState(last.state), last.exit_code
    failed = state is ShardState.FAILED
    passing = {ShardState.PREEMPTED, ShardState.NODE_FAILURE, ShardState.UNKNOWN}
    if last.damaged or state in passing or (failed and code in _PASSING_CODES):
        return None
    if state is ShardState.TIME_LIMIT:
        return None if progressed else "it added no answer within its time limit"
    # Without an exit code: killed together with its batch script, which writes it down.
    if failed and (code is None or code == CRASHED or code in KILLED):
        return None if progressed else "it added no answer before it crashed"
    return _STOPS.get(state, "the same would fail again")


def _used_up(attempts: Sequence[AttemptRecord], limits: RetryLimits) -> str | None:
    if len(attempts) >= limits.max_attempts:
        return f"{len(attempts)} attempts are the most that the profile allows"
    hours = sum(one.elapsed_s or 0 for one in attempts) / 3600
    if limits.max_hours is not None and hours >= limits.max_hours:
        return f"its attempts ran {hours:.1f} h, and the profile allows {limits.max_hours:g} h"
    return None
