"""Splitting requests into shards."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nightshard.core.errors import UserError
from nightshard.core.requests import Request

PROMPT_TOKEN_COST = 0.02
"""Cost of one prompt token in output tokens: prefill is compute-bound, decoding memory-bound."""

CHARACTERS_PER_TOKEN = 4


def estimated_cost(request: Request) -> float:
    """Estimate a request's cost in output tokens."""
    characters = sum(len(message["content"]) for message in request.messages)
    expected = min(
        request.expected_tokens or request.sampling.max_tokens, request.sampling.max_tokens
    )
    return expected + PROMPT_TOKEN_COST * characters / CHARACTERS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class PastLengths:
    """Mean output tokens of earlier answers.

    Attributes:
        problems: by benchmark and problem.
        benchmarks: by benchmark.
    """

    problems: Mapping[tuple[str, str], float]
    benchmarks: Mapping[str, float]

    def expected(self, request: Request) -> int:
        """Return a request's expected output tokens.

        It is its problem's mean, else its benchmark's, else what the benchmark itself expects.
        """
        mean = self.problems.get((request.benchmark, request.problem_id))
        if mean is None:
            mean = self.benchmarks.get(request.benchmark)
        return request.expected_tokens if mean is None else max(1, round(mean))


def with_past_lengths(requests: Iterable[Request], past: PastLengths) -> list[Request]:
    """Return requests whose ``expected_tokens`` follow from earlier answers; ids stay."""
    return [replace(request, expected_tokens=past.expected(request)) for request in requests]


def check_shard_count(num_shards: int, num_requests: int) -> None:
    """Refuse a shard count that cannot be used.

    Raises:
        UserError: fewer than one shard, or more shards than requests.
    """
    if num_shards < 1:
        raise UserError(f"The number of shards is {num_shards}; ask for at least 1.")
    if num_shards > num_requests:
        raise UserError(
            f"{num_shards} shards were asked for, but there are only {num_requests} requests; "
            f"ask for at most {num_requests} shards."
        )


def split_into_shards(requests: Sequence[Request], num_shards: int) -> list[list[Request]]:
    """Split requests into ``num_shards`` lists of about equal estimated cost.

    Longest processing time first: Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J.
    Appl. Math. 17(2), 1969; the costliest shard is at most 4/3 of the best possible. Ties are
    broken by request id, so the split is a function of the set of requests and not of their order.

    Returns:
        Lists that are pairwise disjoint, together complete and none empty; inside a shard the
        costliest request comes first, so that no long answer starts last.

    Raises:
        UserError: see :func:`check_shard_count`.
    """
    check_shard_count(num_shards, len(requests))
    shards: list[list[Request]] = [[] for _ in range(num_shards)]
    load: list[tuple[float, int, int]] = [(0.0, 0, rank) for rank in range(num_shards)]
    for request in sorted(requests, key=lambda r: (-estimated_cost(r), r.request_id)):
        cost, count, rank = load[0]
        shards[rank].append(request)
        heapq.heapreplace(load, (cost + estimated_cost(request), count + 1, rank))
    return shards
