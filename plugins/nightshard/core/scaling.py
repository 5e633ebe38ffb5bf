"""How long an evaluation takes with how many shards: a model that is fitted to earlier runs. Pure.

A shard starts (import, load), then generates its part of the answers; the slowest of several takes
longer than their mean, because answers differ in length. With N shards and T output tokens:

    wall(N) = startup + T * per_token / N + (tail if N > 1)
    GPU seconds(N) = N * startup + T * per_token, for shards of one GPU each

so more shards save time and cost start-ups: what Evalchemy's published timings show (see
``tests/unit/core/test_scaling.py`` for the error of this model on them).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.optimize import nnls

from nightshard.core.errors import UserError

Optimise = Literal["efficiency", "balanced", "rush"]
OPTIMISE = get_args(Optimise)

EFFICIENT = 1.1
"""``efficiency``: at most so much of the GPU time that one shard takes."""

QUICK = 1.15
"""``rush``: within so much of the shortest time that any number of shards can reach."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A run that generated all its answers.

    Attributes:
        shards: their number.
        tokens: output tokens of all of them; any other unit of work does as well.
        wall_seconds: from the first shard's start to the last one's end.
        busy_seconds: of all shards together.
        startup_seconds: a shard's import and load, None where that is not known.
    """

    shards: int
    tokens: float
    wall_seconds: float
    busy_seconds: float
    startup_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """What was fitted, in seconds.

    Attributes:
        startup: of a shard.
        per_token: of one shard, with as many answers at a time as it takes.
        tail: by how much the slowest of several shards outlasts their mean.
        runs: how many runs it rests on.
    """

    startup: float
    per_token: float
    tail: float
    runs: int

    def wall(self, tokens: float, shards: int) -> float:
        """Predict the seconds from the first shard's start to the last one's end."""
        tail = self.tail if shards > 1 else 0.0
        return self.startup + tokens * self.per_token / shards + tail

    def busy(self, tokens: float, shards: int) -> float:
        """Predict the seconds of all shards together."""
        return shards * self.startup + tokens * self.per_token


def fit(observations: Sequence[Observation]) -> Pace:
    """Fit a pace by non-negative least squares of relative errors.

    Raises:
        UserError: there is nothing to fit.
    """
    if not observations:
        raise UserError("No earlier run tells how long an evaluation takes.")
    rows: list[tuple[float, float, float]] = []
    targets: list[float] = []
    for one in observations:
        tail = 1.0 if one.shards > 1 else 0.0
        rows += [(one.shards, one.tokens, 0.0), (1.0, one.tokens / one.shards, tail)]
        targets += [one.busy_seconds, one.wall_seconds]
        if one.startup_seconds:
            rows.append((1.0, 0.0, 0.0))
            targets.append(one.startup_seconds)
    weights = 1 / np.maximum(np.array(targets), 1e-9)
    found, _ = nnls(np.array(rows) * weights[:, None], np.ones(len(rows)))
    startup, per_token, tail = (float(value) for value in found)
    return Pace(startup, per_token, tail, len(observations))


def held_out_errors(observations: Sequence[Observation]) -> dict[int, float]:
    """Return by shard count how far the wall time is off when its own runs are left out.

    Returns:
        Relative errors, positive where the prediction is too long; empty below three counts.
    """
    counts = sorted({one.shards for one in observations})
    if len(counts) < 3:  # noqa: PLR2004 (two points fit any line)
        return {}
    errors = {}
    for count in counts:
        pace = fit([one for one in observations if one.shards != count])
        own = [one for one in observations if one.shards == count]
        errors[count] = statistics.median(
            pace.wall(one.tokens, count) / one.wall_seconds - 1 for one in own
        )
    return errors


def choose_shards(pace: Pace, tokens: float, optimise: Optimise, maximum: int) -> int:
    """Choose a number of shards.

    ``efficiency`` is the largest number that costs at most 10 % more GPU time than one shard,
    ``rush`` the smallest that is within 15 % of the shortest possible time, and ``balanced`` the
    one with the smallest product of both.

    Args:
        pace: from :func:`fit`.
        tokens: expected output tokens.
        optimise: what counts.
        maximum: most shards that may be used.
    """
    work = tokens * pace.per_token
    match optimise:
        case "efficiency":
            chosen = 1 + (EFFICIENT - 1) * (work + pace.startup) / max(pace.startup, 1e-9)
        case "rush":
            fixed = pace.startup + pace.tail
            chosen = math.ceil(work / max((QUICK - 1) * fixed, 1e-9))
        case "balanced":
            chosen = min(
                range(1, maximum + 1),
                key=lambda shards: pace.wall(tokens, shards) * pace.busy(tokens, shards),
            )
    return max(1, min(maximum, int(chosen)))
