"""What a run's attempts did when, as bars on one scale. Pure."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from nightshard.clusters.slurm import ShardState
from nightshard.results.records import AttemptRecord, RunRecord, ShardRecord

Kind = Literal["queued", "load", "generate", "idle", "lost"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of an attempt.

    Attributes:
        kind: waiting in Slurm's queue; importing and loading; generating; holding a GPU for nothing
            of these; or an attempt that did not end well, of which no more is known.
        begin: seconds since the run's start; ``end`` likewise.
    """

    kind: Kind
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Lane:
    """One attempt at one shard.

    Attributes:
        rank: of the shard, from 0.
        attempt: from 1.
        node: where it ran, as far as known.
        state: how it ended.
        bars: one after the other.
    """

    rank: int
    attempt: int
    node: str | None
    state: str
    bars: tuple[Bar, ...]

    def spent(self, kind: Kind) -> float:
        """Return the seconds of one kind."""
        return sum(bar.seconds for bar in self.bars if bar.kind == kind)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run's attempts on one scale.

    Attributes:
        lanes: by rank and attempt.
        seconds: length of the scale.
    """

    lanes: tuple[Lane, ...]
    seconds: float


def timeline(run: RunRecord) -> Timeline:
    """Lay out a run's attempts; empty where the run's start is not known."""
    if run.started_at is None:
        return Timeline((), 0.0)
    lanes = tuple(_lanes(run, run.started_at))
    return Timeline(lanes, max((bar.end for lane in lanes for bar in lane.bars), default=0.0))


def _lanes(run: RunRecord, start: datetime.datetime) -> Iterator[Lane]:
    finished = {(one.rank, one.attempt): one for one in run.shards}
    ready: dict[int, float] = {}
    for one in run.attempts:
        shard = finished.get((one.rank, one.attempt))
        span = _span(one, shard, start)
        if span is None:
            continue
        begin, end = span
        waited = min(ready.get(one.rank, 0.0), begin)
        bars = [Bar("queued", waited, begin), *_bars(one, shard, begin, end)]
        ready[one.rank] = end
        yield Lane(one.rank, one.attempt, one.node, one.state, tuple(b for b in bars if b.seconds))


def _span(
    one: AttemptRecord, shard: ShardRecord | None, start: datetime.datetime
) -> tuple[float, float] | None:
    """Return begin and end of an attempt in seconds since the run's start.

    The worker's own times are exact; Slurm's run time ends when the control plane saw the end.
    """
    if shard is not None and shard.started_at is not None and shard.finished_at is not None:
        begin = (shard.started_at - start).total_seconds()
        end = (shard.finished_at - start).total_seconds()
    elif one.elapsed_s is not None:
        end = (one.ended_at - start).total_seconds()
        begin = end - one.elapsed_s
    else:
        return None
    begin = max(0.0, begin)
    return begin, max(begin, end)


def _bars(one: AttemptRecord, shard: ShardRecord | None, begin: float, end: float) -> Sequence[Bar]:
    if shard is None:
        return [Bar("idle" if one.state == ShardState.ENDED_WELL else "lost", begin, end)]
    loaded = min(end, begin + (shard.import_s or 0.0) + (shard.load_s or 0.0))
    generated = min(end, loaded + (shard.generate_s or 0.0))
    return [
        Bar("load", begin, loaded),
        Bar("generate", loaded, generated),
        Bar("idle", generated, end),
    ]
