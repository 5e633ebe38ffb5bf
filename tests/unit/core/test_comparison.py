"""Paired comparisons against independent implementations and by enumeration."""

import gc
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from nightshard.core.comparison import compare, holm, mcnemar, sign_flip

pytestmark = pytest.mark.unit

single = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60)
repeats = st.lists(st.booleans(), min_size=1, max_size=5)
several = st.lists(st.tuples(repeats, repeats), min_size=2, max_size=25)


def outcomes(pairs: list[tuple[list[bool], list[bool]]]) -> tuple[dict, dict]:
    first = {str(at): a for at, (a, _) in enumerate(pairs)}
    return first, {str(at): b for at, (_, b) in enumerate(pairs)}


@given(st.integers(0, 40), st.integers(0, 40))
def test_single_answers_are_tested_as_mcnemar_did(better: int, worse: int) -> None:
    expected = reference_mcnemar([[7, worse], [better, 9]], exact=True).pvalue
    assert mcnemar(better, worse) == pytest.approx(float(expected))


@given(several)
@settings(max_examples=30)
def test_the_difference_and_its_interval_are_those_of_a_paired_t_test(
    pairs: list[tuple[list[bool], list[bool]]],
) -> None:
    found = compare(*outcomes(pairs))
    a = np.array([np.mean(one) for one, _ in pairs])
    b = np.array([np.mean(two) for _, two in pairs])
    assert found.value == pytest.approx(float(np.mean(b - a)))
    assert found.second - found.first == pytest.approx(found.value)
    assert found.better == int(np.sum(b > a))
    if np.std(b - a) > 1e-9:
        interval = stats.ttest_rel(b, a).confidence_interval(0.95)
        assert found.ci_low == pytest.approx(max(-1, interval.low))
        assert found.ci_high == pytest.approx(min(1, interval.high))


@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]), max_size=9))
@settings(max_examples=30, deadline=None)
def test_few_differences_are_tested_by_all_their_sign_flips(differences: list[float]) -> None:
    moved = [one for one in differences if one]
    sums = [math.fsum(s) for s in itertools.product(*((one, -one) for one in moved))]
    observed = math.fsum(moved)
    above = sum(one >= observed - 1e-12 for one in sums) / len(sums)
    below = sum(one <= observed + 1e-12 for one in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(min(1.0, 2 * min(above, below)))


@given(single)
@settings(max_examples=50)
def test_swapping_the_checkpoints_turns_the_sign_and_nothing_else(
    pairs: list[tuple[bool, bool]],
) -> None:
    first, second = outcomes([([a], [b]) for a, b in pairs])
    forth, back = compare(first, second), compare(second, first)
    assert forth.value == pytest.approx(-back.value)
    assert forth.p_value == pytest.approx(back.p_value)
    assert (forth.better, forth.worse) == (back.worse, back.better)
    assert forth.test == "mcnemar"


@pytest.fixture(scope="module")
def little_garbage() -> Iterator[None]:
    """Statsmodels collects garbage at each call, which takes a second in a large process."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_garbage")
@given(st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0, 1), min_size=1, max_size=12))
def test_several_benchmarks_are_adjusted_as_holm_did(p_values: dict[str, float]) -> None:
    expected = multipletests(list(p_values.values()), method="holm")[1]
    assert list(holm(p_values).values()) == pytest.approx(list(expected))


def test_only_problems_that_both_answered_are_compared() -> None:
    found = compare({"a": [True], "b": [False], "c": []}, {"a": [False], "c": [True], "d": [True]})
    assert (found.problems, found.worse, found.better) == (1, 1, 0)
    assert found.stderr is None
    assert (found.ci_low, found.ci_high) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="no problem in common"):
        compare({"a": [True]}, {"b": [True]})


def test_what_could_have_been_seen_is_told_even_where_nothing_differs() -> None:
    same = {str(at): [at % 3 == 0] for at in range(100)}
    found = compare(same, same)
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.detectable is not None
    assert 0.02 < found.detectable < 0.05


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(7)
    found, sizes = 0, []
    for _ in range(200):
        gain = rng.random(400)
        first = {str(at): [bool(one < 0.5)] for at, one in enumerate(rng.random(400))}
        second = {
            key: [outcome[0] if gain[int(key)] > 0.15 else bool(rng.random() < 0.78)]
            for key, outcome in first.items()
        }
        one = compare(first, second)
        sizes.append(one.detectable)
        found += one.p_value < 0.05
    assert np.mean(sizes) == pytest.approx(0.042, abs=0.006)
    assert 0.6 < found / 200 < 0.95
