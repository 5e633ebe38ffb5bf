"""From problems to requests."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nightshard.benchmarks.base import Benchmark, Problem
from nightshard.core.errors import UserError
from nightshard.core.requests import Request, Sampling, make_request, request_seed

_INT32_MAX = 2**31 - 1
_SEED_MAX = 2**63 - 1
_MAX_TEMPERATURE = 10


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(accepts: Callable[[float], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and math.isfinite(value) and accepts(value)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (
        _number(lambda value: 0 <= value <= _MAX_TEMPERATURE),
        f"a number from 0 (greedy) to {_MAX_TEMPERATURE}",
    ),
    "top_p": (_number(lambda value: 0 < value <= 1), "a number above 0 and at most 1"),
    "max_tokens": (_integer(1, _INT32_MAX), f"a whole number from 1 to {_INT32_MAX}"),
    "seed": (_integer(0, _SEED_MAX), f"a whole number from 0 to {_SEED_MAX}"),
    "repeats": (_integer(1, _INT32_MAX), f"a whole number from 1 to {_INT32_MAX}"),
    "limit": (_integer(1, _INT32_MAX), f"a whole number from 1 to {_INT32_MAX}"),
}

SAMPLING_KEYS = ("temperature", "top_p", "max_tokens")
"""What a user may override of a benchmark's sampling."""


def _check(name: str, value: Any) -> None:
    accepts, wanted = _RULES[name]
    if not accepts(value):
        raise UserError(f"{name} is {value!r}, which cannot be used; give {wanted}.")


def override_sampling(sampling: Sampling, overrides: Mapping[str, Any]) -> Sampling:
    """Replace what the user set; a None means: as the benchmark says.

    Raises:
        UserError: an unknown name, or a value out of bounds.
    """
    chosen: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in SAMPLING_KEYS:
            raise UserError(
                f"{name!r} is no sampling value; set {', '.join(SAMPLING_KEYS)} or leave it out."
            )
        if value is not None:
            _check(name, value)
            # 1 and 1.0 are the same sampling and must give the same request id.
            chosen[name] = value if name == "max_tokens" else float(value)
    return dataclasses.replace(sampling, **chosen)


def build_requests(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    *,
    sampling_overrides: Mapping[str, Any] | None = None,
    system_prompt: str | None = None,
    repeats: int | None = None,
    base_seed: int = 0,
    limit: int | None = None,
) -> list[Request]:
    """Make one request of each repeat of each problem.

    Args:
        benchmark: what asks.
        problems: as the benchmark loaded them.
        sampling_overrides: values in place of the benchmark's, see :data:`SAMPLING_KEYS`.
        system_prompt: put before each question; empty means none.
        repeats: in place of the benchmark's.
        base_seed: every request's own seed is derived from it.
        limit: only the first so many problems.

    Returns:
        Requests ordered by problem, then repeat.

    Raises:
        UserError: a value out of bounds.
    """
    _check("seed", base_seed)
    if repeats is not None:
        _check("repeats", repeats)
    if limit is not None:
        _check("limit", limit)
    info = benchmark.info
    sampling = override_sampling(info.sampling, sampling_overrides or {})
    return [
        make_request(
            benchmark=info.name,
            benchmark_version=info.version,
            problem_id=problem.problem_id,
            repeat_idx=repeat,
            messages=messages,
            sampling=dataclasses.replace(
                sampling, seed=request_seed(base_seed, info.name, problem.problem_id, repeat)
            ),
            expected_tokens=info.expected_tokens,
        )
        for problem in problems[:limit]
        for messages in [benchmark.messages(problem, system_prompt)]
        for repeat in range(repeats if repeats is not None else info.repeats)
    ]
