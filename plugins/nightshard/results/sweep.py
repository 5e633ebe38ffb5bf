"""One evaluation with several numbers of shards: what it took, and what that says. Pure."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nightshard.core.scaling import (
    OPTIMISE,
    Observation,
    choose_shards,
    fit,
    held_out_errors,
)
from nightshard.results.records import RunRecord, ShardRecord

GOOD_GAIN = 1.5
"""Of twice as many shards the ideal gain is 2; below this they are said to bring little."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took.

    Attributes:
        shards: their number.
        wall_seconds: from its start to its end.
        span_seconds: from the first shard's start to the last one's end.
        queue_seconds: median wait of a shard from the run's start to its own.
        gpu_seconds: of all shards.
        startup_share: part of the shards' time that importing and loading took, 0 to 1.
        tokens: output tokens.
        tokens_per_gpu_second: output tokens for each second that a GPU was held.
        run_key: of the run.
        startup_seconds: mean of a shard's import and load.
        busy_seconds: of all shards, whatever the GPUs of each.
    """

    shards: int
    wall_seconds: float
    span_seconds: float
    queue_seconds: float
    gpu_seconds: float
    startup_share: float
    tokens: int
    tokens_per_gpu_second: float
    run_key: str
    startup_seconds: float
    busy_seconds: float


def measure(run: RunRecord) -> Measured | None:
    """Return what a run took; None where its shards do not tell."""
    shards = [one for one in run.shards if one.started_at and one.finished_at]
    if not shards or len(shards) != run.num_shards or run.started_at is None:
        return None
    starts = [one.started_at for one in shards if one.started_at]
    ends = [one.finished_at for one in shards if one.finished_at]
    busy = [(end - start).total_seconds() for start, end in zip(starts, ends, strict=True)]
    startup = [_startup(one) for one in shards]
    # Where no GPU was asked for, a shard counts as one.
    gpu_seconds = float(sum(one.gpu_seconds or 0 for one in run.attempts)) or sum(busy)
    tokens = sum(one.output_tokens or 0 for one in shards)
    waits = [(start - run.started_at).total_seconds() for start in starts]
    return Measured(
        shards=run.num_shards,
        wall_seconds=run.wall_seconds or (max(ends) - run.started_at).total_seconds(),
        span_seconds=(max(ends) - min(starts)).total_seconds(),
        queue_seconds=statistics.median(waits),
        gpu_seconds=gpu_seconds,
        startup_share=sum(startup) / max(sum(busy), 1e-9),
        tokens=tokens,
        tokens_per_gpu_second=tokens / max(gpu_seconds, 1e-9),
        run_key=run.run_key,
        startup_seconds=sum(startup) / len(startup),
        busy_seconds=sum(busy),
    )


def _startup(shard: ShardRecord) -> float:
    return (shard.import_s or 0.0) + (shard.load_s or 0.0)


def observations(points: Sequence[Measured]) -> list[Observation]:
    """Return the points as the model of :mod:`nightshard.core.scaling` takes them."""
    return [
        Observation(
            one.shards,
            max(one.tokens, 1),
            one.span_seconds,
            one.busy_seconds,
            one.startup_seconds or None,
        )
        for one in points
    ]


def recommended(points: Sequence[Measured], maximum: int) -> dict[str, int]:
    """Return the best number of shards by what it is chosen by."""
    pace, tokens = fit(observations(points)), max(points[0].tokens, 1)
    return {name: choose_shards(pace, tokens, name, maximum) for name in OPTIMISE}


def table(points: Sequence[Measured]) -> str:
    """Return the points as a Markdown table."""
    lines = [
        "| shards | time | GPU hours | wait for a shard | starting | tokens per GPU second |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.shards} | {one.wall_seconds / 60:.1f} min | {one.gpu_seconds / 3600:.3f} | "
        f"{one.queue_seconds:.0f} s | {one.startup_share:.0%} | {one.tokens_per_gpu_second:.1f} |"
        for one in points
    ]
    return "\n".join(lines)


def words(points: Sequence[Measured], maximum: int) -> list[str]:
    """Say what the points mean, in the four points of view of Evalchemy's guide, and the error."""
    return [
        _diminishing(points),
        _efficiency(points),
        _startup_words(points),
        _utilisation(points),
        _prediction(points),
        "Recommended shards: "
        + ", ".join(f"{n} for {name}" for name, n in recommended(points, maximum).items())
        + ".",
    ]


def _diminishing(points: Sequence[Measured]) -> str:
    for less, more in itertools.pairwise(points):
        doublings = math.log2(more.shards / less.shards)
        gain = less.wall_seconds / max(more.wall_seconds, 1e-9)
        if gain < GOOD_GAIN**doublings:
            return (
                f"Diminishing returns: from {less.shards} to {more.shards} shards the time falls "
                f"from {less.wall_seconds:.0f} to {more.wall_seconds:.0f} s only."
            )
    most = points[-1]
    return f"Diminishing returns: not reached; {most.shards} shards still pay in time."


def _efficiency(points: Sequence[Measured]) -> str:
    least, most = (f(points, key=lambda one: one.gpu_seconds) for f in (min, max))
    return (
        f"Efficiency: GPU time is least with {least.shards}, {least.gpu_seconds:.0f} s; "
        f"{most.shards} take {most.gpu_seconds / max(least.gpu_seconds, 1e-9):.2f} times as much."
    )


def _startup_words(points: Sequence[Measured]) -> str:
    first, last = points[0], points[-1]
    return (
        f"Initialisation: starting is {first.startup_share:.0%} of the shards' time with "
        f"{first.shards} and {last.startup_share:.0%} with {last.shards}."
    )


def _utilisation(points: Sequence[Measured]) -> str:
    first, last = points[0], points[-1]
    part = last.tokens_per_gpu_second / max(first.tokens_per_gpu_second, 1e-9)
    return (
        f"Utilisation: with {last.shards} shards a GPU gives {part:.0%} of the tokens per second "
        f"that it gives with {first.shards}."
    )


def _prediction(points: Sequence[Measured]) -> str:
    errors = held_out_errors(observations(points))
    if not errors:
        return "Prediction: three numbers of shards or more would tell how far it can be trusted."
    told = ", ".join(f"{count}: {error:+.0%}" for count, error in errors.items())
    return f"Prediction: the time of a number of shards that was left out is off by ({told})."
