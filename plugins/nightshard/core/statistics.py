"""Means of repeated right-or-wrong outcomes, and how sure one can be of them."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """An estimated share.

    Attributes:
        value: mean of all outcomes, in [0, 1].
        stderr: standard error, clustered; None where a single cluster gives no idea of it.
        ci_low: lower end of the 95 % interval, in [0, value].
        ci_high: upper end of it, in [value, 1].
        n: number of outcomes.
        clusters: number of clusters.
    """

    value: float
    stderr: float | None
    ci_low: float
    ci_high: float
    n: int
    clusters: int


def clustered_proportion(outcomes: Iterable[tuple[Hashable, bool]]) -> Proportion:
    """Estimate a share from outcomes that come in clusters (the repeats of one problem).

    The standard error is that of cluster sums with the usual factor for few clusters,

        SE^2 = G / (G - 1) * sum_c (sum_i (s_ci - mean))^2 / n^2

    with G clusters and n outcomes: Liang & Zeger, "Longitudinal Data Analysis Using Generalized
    Linear Models", Biometrika 73(1), 1986; for evaluations Miller, "Adding Error Bars to Evals",
    arXiv:2411.00640, section 2.2; the factor as in Cameron & Miller, "A Practitioner's Guide to
    Cluster-Robust Inference", Journal of Human Resources 50(2), 2015. With one outcome a cluster
    it is the textbook s / sqrt(n), with equally many it is the standard error of the clusters'
    means; repeats of one problem never make it smaller than their agreement allows.

    The interval is Wilson's at the effective sample size p (1 - p) / SE^2, see
    :func:`wilson_interval`; where all outcomes agree, SE says nothing and the number of clusters
    counts.

    Args:
        outcomes: pairs of a cluster and an outcome.

    Raises:
        ValueError: there are no outcomes.
    """
    mean = clustered_mean(outcomes)
    return _proportion(mean, mean.n)


def mean_over_problems(values: Sequence[float], n: int) -> Proportion:
    """Estimate the mean of what each problem gives, such as its pass@k.

    The standard error is that of a mean over problems, the interval Wilson's as in
    :func:`clustered_proportion`.

    Args:
        values: one a problem, each in [0, 1].
        n: number of answers behind them.

    Raises:
        ValueError: there are no values.
    """
    return _proportion(clustered_mean(enumerate(values)), n)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of values that come in clusters.

    Attributes:
        value: mean of all values.
        stderr: standard error, clustered; None where a single cluster gives no idea of it.
        n: number of values.
        clusters: number of clusters.
    """

    value: float
    stderr: float | None
    n: int
    clusters: int


def clustered_mean(values: Iterable[tuple[Hashable, float]]) -> Mean:
    """Take the mean of values that come in clusters; see :func:`clustered_proportion`.

    Args:
        values: pairs of a cluster and a value.

    Raises:
        ValueError: there are no values.
    """
    by_cluster: dict[Hashable, list[float]] = defaultdict(list)
    for cluster, value in values:
        by_cluster[cluster].append(value)
    n, clusters = sum(map(len, by_cluster.values())), len(by_cluster)
    if n == 0:
        raise ValueError("there are no outcomes to take a mean of")
    mean = math.fsum(value for each in by_cluster.values() for value in each) / n
    if clusters == 1:
        return Mean(mean, None, n, clusters)
    squares = math.fsum((math.fsum(one) - len(one) * mean) ** 2 for one in by_cluster.values())
    return Mean(mean, math.sqrt(clusters / (clusters - 1) * squares) / n, n, clusters)


def _proportion(mean: Mean, n: int) -> Proportion:
    share, stderr = min(1.0, mean.value), mean.stderr
    effective: float = mean.clusters
    if stderr and 0 < share < 1:
        effective = share * (1 - share) / stderr**2
    low, high = wilson_interval(share, min(effective, n))
    return Proportion(share, stderr, low, high, n, mean.clusters)


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % score interval of a share seen in ``n`` independent outcomes.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927;
    with an effective ``n`` for clustered outcomes as in Korn & Graubard, "Confidence Intervals for
    Proportions with Small Expected Number of Positive Counts", Survey Methodology 24(2), 1998.
    Unlike mean ± 1.96 SE it stays inside [0, 1] and does not collapse at 0 or 1.

    Args:
        share: in [0, 1].
        n: above 0, not necessarily whole.

    Raises:
        ValueError: an argument is out of bounds.
    """
    if not 0 <= share <= 1 or not n > 0:
        raise ValueError(f"no interval of a share {share} of {n} outcomes")
    squared = Z_95**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = Z_95 / (1 + squared / n) * math.sqrt(share * (1 - share) / n + squared / (4 * n * n))
    # Rounding must not push an end past the share itself.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
