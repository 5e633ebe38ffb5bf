"""pass@k, majority votes and stability, against counting every way to draw."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.repeats import g_pass_at_k, ks_for, majority, pass_at_k

pytestmark = pytest.mark.unit


@st.composite
def drawn(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 9))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(drawn())
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    draws = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@given(drawn(), st.sampled_from([0.1, 0.25, 0.5, 0.7, 1.0]))
def test_g_pass_at_k_is_the_share_of_draws_with_enough_right_answers(
    case: tuple[int, int, int], share: float
) -> None:
    n, correct, k = case
    draws = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    enough = [sum(draw) >= share * k - 1e-9 for draw in draws]
    assert g_pass_at_k(n, correct, k, share) == pytest.approx(sum(enough) / len(draws))


@given(drawn())
def test_pass_at_k_is_g_pass_at_k_of_the_least_share(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    assert g_pass_at_k(n, correct, k, 1 / k) == pytest.approx(pass_at_k(n, correct, k))
    assert pass_at_k(n, correct, 1) == pytest.approx(correct / n)


@pytest.mark.parametrize("case", [(3, 4, 1), (3, 1, 4), (3, 1, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(case: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        pass_at_k(*case)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("4", True), ("4", True), ("5", False)], 1.0),
        ([("4", True), ("5", False), ("5", False)], 0.0),
        ([("4", True), ("5", False)], 0.5),
        ([("4", True), ("5", False), ("6", False)], 1 / 3),
        ([(None, False), (None, False), ("4", True)], 1.0),
        ([(None, False), (None, False)], 0.0),
    ],
)
def test_the_majority_decides_and_a_tie_counts_as_its_share(
    votes: list[tuple[str | None, bool]], expected: float
) -> None:
    assert majority(votes) == pytest.approx(expected)


def test_the_ks_are_powers_of_two_and_all() -> None:
    assert [ks_for(n) for n in (1, 2, 3, 8, 10)] == [[], [2], [2, 3], [2, 4, 8], [2, 4, 8, 10]]
