"""How long to wait before a login node is asked again. Pure."""

import dataclasses
from dataclasses import dataclass

from nightshard.clusters.slurm import ShardState
from nightshard.clusters.status import ShardStatus

SHARE_OF_QUIET = 0.25
"""After a quiet time t the next poll comes t/4 later: a change is noticed late by a quarter of the
time that it took, and a queue of hours costs few polls."""

SHARE_OF_REMAINING = 0.25
BACKOFF_CEILING_S = 300.0
JITTER = 0.2
MAX_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class PollBounds:
    """A profile's bounds, in seconds (see :class:`nightshard.clusters.profile.Polling`)."""

    floor_s: float = 10.0
    ceiling_s: float = 120.0
    grace_s: float = 120.0
    manifest_grace_s: float = 30.0


def most_careful(one: PollBounds, other: PollBounds) -> PollBounds:
    """Return bounds that are within both: the longer time of each pair."""
    return PollBounds(*map(max, dataclasses.astuple(one), dataclasses.astuple(other)))


def next_interval(
    bounds: PollBounds, quiet_s: float, remaining_s: float | None, failures: int
) -> float:
    """Return the seconds until the next poll, before jitter.

    Args:
        bounds: the profile's.
        quiet_s: seconds since a shard's state last changed or one began to be watched.
        remaining_s: estimated seconds until the first running shard ends, None where unknown.
        failures: polls that failed in a row; they back off exponentially.
    """
    if failures:
        return backoff(max(bounds.floor_s, 1.0), failures, max(BACKOFF_CEILING_S, bounds.floor_s))
    wanted = quiet_s * SHARE_OF_QUIET
    if remaining_s is not None:
        wanted = min(wanted, remaining_s * SHARE_OF_REMAINING)
    return min(max(wanted, bounds.floor_s), bounds.ceiling_s)


def backoff(first_s: float, failures: int, ceiling_s: float) -> float:
    """Return how long to wait after so many failures in a row: twice as long after each."""
    return min(first_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS), ceiling_s)


def pause_after(interval_s: float, took_s: float, jitter: float) -> float:
    """Return the seconds from the end of a poll to the next.

    A login node that answers slowly is kept busy for half of the time at most.

    Args:
        interval_s: from one poll's start to the next one's.
        took_s: what the poll took.
        jitter: from 0 to 1. It only lengthens an interval, so that the floor holds.
    """
    return max(interval_s * (1.0 + JITTER * jitter) - took_s, took_s)


def remaining_s(status: ShardStatus, running_s: float) -> float | None:
    """Estimate when a shard ends from the answers done in its running time; None if unknown."""
    progress = status.progress
    if status.state is ShardState.UNKNOWN:
        return 0.0
    if progress is None or status.state is not ShardState.RUNNING:
        return None
    if progress.phase in {"writing", "done", "failed"}:
        return 0.0
    if progress.phase != "generating" or progress.done == 0:
        return None
    return running_s * (progress.total - progress.done) / progress.done
