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
    count: dict[Hashable, int] = defaultdict(int)
    right: dict[Hashable, int] = defaultdict(int)
    for cluster, outcome in outcomes:
        count[cluster] += 1
        right[cluster] += bool(outcome)
    n, clusters = sum(count.values()), len(count)
    if n == 0:
        raise ValueError("there are no outcomes to take a mean of")
    mean = sum(right.values()) / n
    stderr = None
    if clusters > 1:
        squares = math.fsum((right[c] - count[c] * mean) ** 2 for c in count)
        stderr = math.sqrt(clusters / (clusters - 1) * squares) / n
    varies = stderr is not None and stderr > 0 and 0 < mean < 1
    effective = mean * (1 - mean) / stderr**2 if varies and stderr is not None else clusters
    low, high = wilson_interval(mean, min(effective, n))
    return Proportion(mean, stderr, low, high, n, clusters)


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
    if not values:
        raise ValueError("there are no problems to take a mean of")
    problems = len(values)
    mean = min(1.0, math.fsum(values) / problems)
    stderr = None
    if problems > 1:
        squares = math.fsum((one - mean) ** 2 for one in values)
        stderr = math.sqrt(squares / (problems - 1) / problems)
    varies = stderr is not None and stderr > 0 and 0 < mean < 1
    effective = mean * (1 - mean) / stderr**2 if varies and stderr is not None else problems
    low, high = wilson_interval(mean, min(effective, n))
    return Proportion(mean, stderr, low, high, n, problems)


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
