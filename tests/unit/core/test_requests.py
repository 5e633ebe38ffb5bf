"""A request's id is a hash of all that is asked, and its seed is its own."""

import itertools
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.requests import Request, Sampling, make_request, request_seed
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

ASKED: dict[str, Any] = {
    "benchmark": "MATH500",
    "benchmark_version": "1",
    "problem_id": "p",
    "repeat_idx": 0,
    "messages": [{"role": "user", "content": "What is 1 + 1?"}],
    "sampling": Sampling(0.7, 0.95, 100, 5, ("stop",)),
}

CHANGES: list[dict[str, Any]] = [
    {"benchmark": "AIME24"},
    {"benchmark_version": "2"},
    {"problem_id": "q"},
    {"repeat_idx": 1},
    {"messages": [{"role": "user", "content": "What is 1 + 1? "}]},
    {"messages": [{"role": "system", "content": "What is 1 + 1?"}]},
    {"sampling": Sampling(0.8, 0.95, 100, 5, ("stop",))},
    {"sampling": Sampling(0.7, 0.9, 100, 5, ("stop",))},
    {"sampling": Sampling(0.7, 0.95, 101, 5, ("stop",))},
    {"sampling": Sampling(0.7, 0.95, 100, 6, ("stop",))},
    {"sampling": Sampling(0.7, 0.95, 100, 5)},
]


def ask(**change: Any) -> Request:
    return make_request(**{**ASKED, **change})


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_whatever_is_asked_differently_has_another_id(change: dict[str, Any]) -> None:
    assert ask(**change).request_id != ask().request_id


def test_all_changes_differ_among_themselves() -> None:
    assert len({ask(**change).request_id for change in CHANGES}) == len(CHANGES)


def test_the_expected_length_is_not_part_of_the_id() -> None:
    assert ask(expected_tokens=9).request_id == ask().request_id


def test_the_id_is_the_same_in_another_process_with_another_hash_seed() -> None:
    probe = (
        "from nightshard.core.requests import *; print(make_request(benchmark='MATH500', "
        "benchmark_version='1', problem_id='p', repeat_idx=0, messages=[{'content': "
        "'What is 1 + 1?', 'role': 'user'}], sampling=Sampling(0.7, 0.95, 100, 5, ('stop',)))"
        ".request_id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROJECT_ROOT / "plugins"), "PYTHONHASHSEED": "77"},
    )
    assert done.stdout.strip() == ask().request_id


@given(
    st.floats(0, 2),
    st.floats(0.01, 1),
    st.integers(1, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.lists(st.text(max_size=5), max_size=3),
)
def test_sampling_survives_its_json_form(
    temperature: float, top_p: float, max_tokens: int, seed: int, stop: list[str]
) -> None:
    sampling = Sampling(temperature, top_p, max_tokens, seed, tuple(stop))
    assert Sampling.from_dict(sampling.to_dict()) == sampling


def test_a_sampling_without_stop_strings_may_come_as_null() -> None:
    row = {**Sampling(0.0, 1.0, 8).to_dict(), "stop": None}
    assert Sampling.from_dict(row) == Sampling(0.0, 1.0, 8)


@given(st.integers(0, 2**40), st.text(max_size=8), st.text(max_size=8), st.integers(0, 100))
def test_a_seed_fits_in_31_bits_and_is_always_the_same(
    base: int, benchmark: str, problem: str, repeat: int
) -> None:
    seed = request_seed(base, benchmark, problem, repeat)
    assert 0 <= seed < 2**31
    assert seed == request_seed(base, benchmark, problem, repeat)


def test_seeds_of_neighbours_are_neither_equal_nor_adjacent() -> None:
    seeds = sorted(
        request_seed(base, "B", f"p{p}", k) for base in (0, 1) for p in range(30) for k in range(10)
    )
    gaps = [b - a for a, b in itertools.pairwise(seeds)]
    assert min(gaps) > 1
