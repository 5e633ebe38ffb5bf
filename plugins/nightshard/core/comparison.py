"""Is one checkpoint better than another? Paired by problem. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nightshard.core.statistics import Z_95, clustered_mean

PERMUTATIONS = 9_999
"""Random sign flips; with the observed one 10,000. All are tried where there are no more."""

_Z_POWER_80 = 0.8416212335729143
"""The 80 % quantile of the standard normal distribution."""

Test = Literal["mcnemar", "permutation"]


@dataclass(frozen=True, slots=True)
class Difference:
    """How two checkpoints differ on one benchmark.

    Attributes:
        first: mean of the first, over the problems that both have.
        second: mean of the second.
        value: second minus first.
        stderr: standard error of ``value``, None with a single problem.
        ci_low: lower end of the 95 % interval.
        ci_high: upper end.
        p_value: two-sided.
        test: which test gave it.
        problems: how many both have.
        better: problems on which the second is better.
        worse: problems on which it is worse.
        detectable: the smallest true difference that these data would have shown with 80 % power
            at the 5 % level, None with a single problem.
    """

    first: float
    second: float
    value: float
    stderr: float | None
    ci_low: float
    ci_high: float
    p_value: float
    test: Test
    problems: int
    better: int
    worse: int
    detectable: float | None


def compare(
    first: Mapping[str, Sequence[bool]], second: Mapping[str, Sequence[bool]]
) -> Difference:
    """Compare two checkpoints on the problems that both have answered.

    Pairing by problem takes out how hard the problems are: Miller, "Adding Error Bars to Evals",
    arXiv:2411.00640, section 4.2. The interval is Student's over the problems' differences. The
    test is McNemar's exact one for single answers, and otherwise a sign-flip permutation test of
    the mean difference.

    Args:
        first: problem → outcomes of its repeats.
        second: likewise.

    Raises:
        ValueError: they have no problem in common.
    """
    shared = sorted(problem for problem in first if first[problem] and second.get(problem))
    if not shared:
        raise ValueError("they have no problem in common")
    pairs = [(_mean(first[one]), _mean(second[one])) for one in shared]
    differences = [b - a for a, b in pairs]
    mean = clustered_mean(enumerate(differences))
    stderr = mean.stderr
    half = math.inf if stderr is None else _student_95(len(shared) - 1) * stderr
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    single = all(len(first[one]) == len(second[one]) == 1 for one in shared)
    p_value = mcnemar(better, worse) if single else sign_flip(differences)
    return Difference(
        first=math.fsum(a for a, _ in pairs) / len(pairs),
        second=math.fsum(b for _, b in pairs) / len(pairs),
        value=mean.value,
        stderr=stderr,
        ci_low=max(-1.0, mean.value - half),
        ci_high=min(1.0, mean.value + half),
        p_value=p_value,
        test="mcnemar" if single else "permutation",
        problems=len(shared),
        better=better,
        worse=worse,
        detectable=None if stderr is None else _detectable(len(shared), stderr),
    )


def mcnemar(better: int, worse: int) -> float:
    """Return McNemar's exact two-sided p-value.

    The problems on which both agree say nothing; among the others each side is as likely if there
    is no difference: a binomial test with one half. McNemar, Psychometrika 12, 1947; exact form as
    in Fay, "Two-sided Exact Tests and Matching Confidence Intervals", The R Journal 2(1), 2010.

    Args:
        better: problems that only the second solved.
        worse: problems that only the first solved.
    """
    if not better + worse:
        return 1.0
    from scipy.stats import binomtest  # noqa: PLC0415 (half a second, and DAG files import core)

    return float(binomtest(better, better + worse).pvalue)


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Return the two-sided p-value of a permutation test of a mean of zero.

    Under no difference each problem's difference is as likely with either sign. All flips are
    tried where they are few, else random ones, the observed one among them (Phipson and Smyth,
    "Permutation P-values Should Never Be Zero", SAGMB 9(1), 2010).

    Args:
        differences: of the problems; zeros say nothing.
        seed: of the random flips, so that the same data give the same value.
    """
    moved = [one for one in differences if one]
    if len(moved) < 2:  # noqa: PLR2004 (the two signs of a single one are equally extreme)
        return 1.0
    import numpy as np  # noqa: PLC0415
    from scipy.stats import permutation_test  # noqa: PLC0415

    result = permutation_test(
        (np.array(moved),),
        np.mean,
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values of several benchmarks so that any false alarm stays at the level.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6, 1979.

    Args:
        p_values: benchmark → p-value.

    Returns:
        Benchmark → adjusted p-value, at most 1, in the given order.
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _mean(outcomes: Sequence[bool]) -> float:
    return sum(map(bool, outcomes)) / len(outcomes)


def _detectable(problems: int, stderr: float) -> float:
    """Return (z_0.975 + z_0.8) SE, with the SE that one differing problem gives as its least.

    Miller, arXiv:2411.00640, section 5, solved for the difference. Checkpoints that agree on every
    problem seem to have no spread at all.
    """
    one_differs = clustered_mean((at, float(at == 0)) for at in range(problems))
    return min(1.0, (Z_95 + _Z_POWER_80) * max(stderr, one_differs.stderr or 0.0))


def _student_95(freedom: int) -> float:
    from scipy.stats import t  # noqa: PLC0415

    return float(t.ppf(0.975, freedom))
