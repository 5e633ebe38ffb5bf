"""Each repeat of each problem becomes one request with its own seed and id."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.requests import build_requests
from nightshard.core.errors import UserError
from nightshard.core.requests import Request

pytestmark = pytest.mark.unit

PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(7)]


def build(name: str = "AIME24", **options: Any) -> list[Request]:
    return build_requests(registry.get(name), PROBLEMS, **options)


def test_the_benchmark_s_own_repeats_and_sampling_hold_unless_set() -> None:
    requests = build()
    assert len(requests) == 7 * 10
    assert {r.sampling.temperature for r in requests} == {0.7}
    changed = build(sampling_overrides={"temperature": 0, "max_tokens": 64, "top_p": None})
    assert {(r.sampling.temperature, r.sampling.max_tokens) for r in changed} == {(0.0, 64)}
    assert {r.sampling.top_p for r in changed} == {0.95}


def test_every_request_of_a_run_has_its_own_seed_and_id() -> None:
    requests = build()
    assert len({r.sampling.seed for r in requests}) == len(requests)
    assert len({r.request_id for r in requests}) == len(requests)


def test_a_limit_keeps_the_first_problems_with_the_ids_they_have_in_a_full_run() -> None:
    limited = build(limit=2, repeats=3)
    assert [r.problem_id for r in limited] == ["p0"] * 3 + ["p1"] * 3
    assert {r.request_id for r in limited} <= {r.request_id for r in build()}
    assert len(build(limit=1000)) == 70


def test_a_whole_number_and_the_same_float_are_the_same_question() -> None:
    one, other = (build(sampling_overrides={"temperature": t}) for t in (1, 1.0))
    assert [r.request_id for r in one] == [r.request_id for r in other]


@pytest.mark.parametrize(
    "options",
    [
        {"system_prompt": "Be brief."},
        {"base_seed": 1},
        {"sampling_overrides": {"temperature": 0.1}},
        {"sampling_overrides": {"max_tokens": 7}},
    ],
)
def test_anything_that_changes_the_question_changes_every_id(options: dict[str, Any]) -> None:
    before = {r.request_id for r in build()}
    assert before.isdisjoint(r.request_id for r in build(**options))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampling_overrides": {"temperature": -0.1}}, "temperature is -0.1"),
        ({"sampling_overrides": {"temperature": float("nan")}}, "temperature is nan"),
        ({"sampling_overrides": {"temperature": True}}, "temperature is True"),
        ({"sampling_overrides": {"top_p": 0}}, "top_p is 0"),
        ({"sampling_overrides": {"top_p": 1.01}}, "top_p is 1.01"),
        ({"sampling_overrides": {"max_tokens": 0}}, "max_tokens is 0"),
        ({"sampling_overrides": {"max_tokens": 2**31}}, "max_tokens is 2147483648"),
        ({"sampling_overrides": {"max_tokens": "64"}}, "max_tokens is '64'"),
        ({"sampling_overrides": {"top_k": 5}}, "'top_k' is no sampling value"),
        ({"base_seed": -1}, "seed is -1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 1.5}, "limit is 1.5"),
    ],
)
def test_a_value_that_cannot_be_used_gets_one_sentence(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=f"^{sentence}.*;") as caught:
        build(**options)
    assert str(caught.value).count("\n") == 0


@given(
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.floats(0, 10),
    st.floats(0, 1, exclude_min=True),
)
def test_any_allowed_setting_gives_problems_times_repeats(
    limit: int, repeats: int, seed: int, temperature: float, top_p: float
) -> None:
    requests = build(
        limit=limit,
        repeats=repeats,
        base_seed=seed,
        sampling_overrides={"temperature": temperature, "top_p": top_p},
    )
    assert [(r.problem_id, r.repeat_idx) for r in requests] == [
        (f"p{p}", k) for p in range(limit) for k in range(repeats)
    ]
    assert all(0 <= r.sampling.seed < 2**31 for r in requests)
