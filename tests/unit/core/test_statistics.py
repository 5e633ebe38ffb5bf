"""Means, clustered standard errors and intervals, against independent computations."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.statistics import Z_95, clustered_proportion, wilson_interval

pytestmark = pytest.mark.unit

outcome_lists = st.lists(st.booleans(), min_size=2, max_size=80)
clusters = st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=2, max_size=30)


def in_clusters(groups: list[list[bool]]) -> list[tuple[int, bool]]:
    return [(c, outcome) for c, group in enumerate(groups) for outcome in group]


@given(outcome_lists)
def test_without_repeats_it_is_the_textbook_standard_error(outcomes: list[bool]) -> None:
    estimate = clustered_proportion(enumerate(outcomes))
    values = [float(outcome) for outcome in outcomes]
    assert estimate.value == pytest.approx(statistics.fmean(values))
    assert estimate.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)))


@given(st.integers(1, 5), st.data())
def test_with_equal_repeats_it_is_the_standard_error_of_the_problems_means(
    repeats: int, data: st.DataObject
) -> None:
    group = st.lists(st.booleans(), min_size=repeats, max_size=repeats)
    groups = data.draw(st.lists(group, min_size=2, max_size=20))
    means = np.array(groups, dtype=float).mean(axis=1)
    estimate = clustered_proportion(in_clusters(groups))
    assert estimate.value == pytest.approx(means.mean())
    assert estimate.stderr == pytest.approx(means.std(ddof=1) / np.sqrt(len(means)))


@given(clusters)
def test_with_unequal_repeats_it_is_the_sandwich_of_a_mean_only_regression(
    groups: list[list[bool]],
) -> None:
    outcomes = in_clusters(groups)
    y = np.array([float(outcome) for _, outcome in outcomes])
    member = np.array([[float(c == k) for k in range(len(groups))] for c, _ in outcomes])
    x = np.ones((len(y), 1))
    bread = np.linalg.inv(x.T @ x)
    scores = member.T @ (x * (y - y.mean())[:, None])
    correction = len(groups) / (len(groups) - 1)
    sandwich = correction * bread @ (scores.T @ scores) @ bread
    assert clustered_proportion(outcomes).stderr == pytest.approx(float(np.sqrt(sandwich[0, 0])))


@given(clusters, st.integers(2, 4))
def test_copying_every_answer_makes_nothing_more_certain(
    groups: list[list[bool]], copies: int
) -> None:
    once = clustered_proportion(in_clusters(groups))
    more = clustered_proportion(in_clusters([group * copies for group in groups]))
    assert more.value == pytest.approx(once.value)
    assert more.stderr == pytest.approx(once.stderr)
    assert more.n == copies * once.n


@given(clusters)
def test_the_interval_holds_the_mean_and_stays_between_0_and_1(groups: list[list[bool]]) -> None:
    estimate = clustered_proportion(in_clusters(groups))
    assert 0 <= estimate.ci_low <= estimate.value <= estimate.ci_high <= 1
    assert estimate.ci_low < estimate.ci_high


@pytest.mark.parametrize(("right", "n"), [(0, 30), (30, 30), (0, 1), (1, 1)])
def test_all_right_or_all_wrong_is_not_certain(right: int, n: int) -> None:
    estimate = clustered_proportion((i, i < right) for i in range(n))
    assert estimate.ci_high - estimate.ci_low > 0.1


@given(st.floats(0, 1), st.floats(0.5, 1e6))
def test_wilson_s_ends_solve_his_equation(share: float, n: float) -> None:
    for end in wilson_interval(share, n):
        assert n * (share - end) ** 2 == pytest.approx(Z_95**2 * end * (1 - end), abs=1e-6)


def test_wilson_s_interval_of_a_known_case() -> None:
    # 81 of 263, the example of Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
    low, high = wilson_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_a_single_problem_has_no_standard_error() -> None:
    estimate = clustered_proportion([("p", True), ("p", False)])
    assert (estimate.value, estimate.stderr, estimate.n, estimate.clusters) == (0.5, None, 2, 1)


def test_the_quantile_is_that_of_the_normal_distribution() -> None:
    assert pytest.approx(statistics.NormalDist().inv_cdf(0.975)) == Z_95


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        clustered_proportion([])


@pytest.mark.parametrize(("share", "n"), [(-0.1, 5), (1.1, 5), (0.5, 0), (0.5, -1)])
def test_an_impossible_share_or_count_has_no_interval(share: float, n: float) -> None:
    with pytest.raises(ValueError, match="no interval"):
        wilson_interval(share, n)
