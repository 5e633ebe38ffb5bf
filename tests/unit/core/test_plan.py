"""Shards: every request in exactly one, about equal in cost, whatever the order."""

import dataclasses
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.errors import UserError
from nightshard.core.plan import check_shard_count, estimated_cost, split_into_shards
from nightshard.core.requests import Request, Sampling, make_request

pytestmark = pytest.mark.unit


def request(number: int, expected: int = 100, prompt: str = "q", max_tokens: int = 4096) -> Request:
    return make_request(
        benchmark="B",
        benchmark_version="1",
        problem_id=str(number),
        repeat_idx=0,
        messages=[{"role": "user", "content": prompt}],
        sampling=Sampling(0.7, 0.95, max_tokens),
        expected_tokens=expected,
    )


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[Request], int]:
    costs = draw(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
    return [request(i, cost) for i, cost in enumerate(costs)], draw(st.integers(1, len(costs)))


@given(plans())
def test_shards_are_disjoint_complete_and_none_is_empty(plan: tuple[list[Request], int]) -> None:
    requests, num_shards = plan
    shards = split_into_shards(requests, num_shards)
    assert len(shards) == num_shards
    assert all(shards)
    ids = [r.request_id for shard in shards for r in shard]
    assert sorted(ids) == sorted(r.request_id for r in requests)


@given(st.lists(st.integers(1, 100), min_size=3, max_size=7), st.integers(2, 3))
def test_the_costliest_shard_is_within_graham_s_bound_of_the_best_possible(
    costs: list[int], num_shards: int
) -> None:
    requests = [request(i, cost, prompt="") for i, cost in enumerate(costs)]
    best = min(
        max(sum(c for c, own in zip(costs, owners, strict=True) if own == s) for s in owners)
        for owners in itertools.product(range(num_shards), repeat=len(costs))
    )
    worst = max(sum(map(estimated_cost, s)) for s in split_into_shards(requests, num_shards))
    assert worst <= (4 / 3 - 1 / (3 * num_shards)) * best + 1e-9


@given(plans(), st.randoms())
def test_the_split_depends_on_the_set_of_requests_and_not_on_their_order(
    plan: tuple[list[Request], int], chance: random.Random
) -> None:
    requests, num_shards = plan
    shuffled = chance.sample(requests, len(requests))
    assert split_into_shards(shuffled, num_shards) == split_into_shards(requests, num_shards)


@given(plans())
def test_a_shard_starts_with_its_costliest_request(plan: tuple[list[Request], int]) -> None:
    for shard in split_into_shards(*plan):
        costs = [estimated_cost(r) for r in shard]
        assert costs == sorted(costs, reverse=True)


def test_equal_requests_are_spread_evenly() -> None:
    shards = split_into_shards([request(i) for i in range(10)], 4)
    assert sorted(map(len, shards)) == [2, 2, 3, 3]


def test_a_cost_is_the_expected_length_capped_by_the_limit_plus_a_little_for_the_prompt() -> None:
    assert estimated_cost(request(1, 100, "")) == 100
    assert estimated_cost(request(1, 9000, "", max_tokens=500)) == 500
    assert estimated_cost(request(1, 0, "", max_tokens=500)) == 500
    assert estimated_cost(request(1, 100, "x" * 400)) == pytest.approx(100 + 0.02 * 100)


@pytest.mark.parametrize(
    ("shards", "sentence"),
    [
        (0, "number of shards is 0; ask for at least 1"),
        (-3, "number of shards is -3"),
        (6, "6 shards were asked for, but there are only 5 requests"),
    ],
)
def test_a_shard_count_that_cannot_be_used_is_refused(shards: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_shard_count(shards, 5)
    with pytest.raises(UserError, match=sentence):
        split_into_shards([request(i) for i in range(5)], shards)


def test_the_expected_length_changes_the_split_but_not_the_request() -> None:
    one = request(1, 100)
    assert dataclasses.replace(one, expected_tokens=7) == one
