"""A benchmark's metrics from its judged answers. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from nightshard.benchmarks.base import BenchmarkInfo, Problem, Verdict
from nightshard.core.repeats import g_pass_at_k, ks_for, majority, pass_at_k
from nightshard.core.statistics import (
    Z_95,
    Proportion,
    clustered_mean,
    clustered_proportion,
    mean_over_problems,
)
from nightshard.results.records import MetricRecord

Row = dict[str, Any]
"""A request with its ``answer``, None where there is none."""

Judged = tuple[Row, Problem, Verdict]

STABLE = (0.5, 1.0)
"""Shares of right answers for which G-pass@k is told."""


def text_of(row: Row) -> str | None:
    """Return the text of a request's answer, None where there is none or it is an error."""
    answer = row["answer"]
    text: str | None = None if answer is None or answer["error"] is not None else answer["text"]
    return text


def benchmark_metrics(
    info: BenchmarkInfo,
    rows: Sequence[Row],
    judged: Sequence[Judged],
    problems: Sequence[Problem],
) -> list[MetricRecord]:
    """Compute all metrics of a benchmark, then the accuracy of its subsets.

    Args:
        info: the benchmark.
        rows: all its requests.
        judged: those that have a text, with the verdicts.
        problems: those that were asked.
    """
    answered = [row for row in rows if row["answer"] is not None]
    right = [(problem.problem_id, verdict.correct) for _, problem, verdict in judged]
    cut = [(row["problem_id"], row["answer"]["finish_reason"] == "length") for row, _, _ in judged]
    wrecked = [(row["problem_id"], text_of(row) is None) for row in answered]
    coverage = len(judged) / len(rows)
    # A rate of errors covers the answers that came, errors among them.
    came = len(answered) / len(rows)
    metrics = [
        *_share(info, "accuracy", right, coverage),
        *_share(info, "truncation_rate", cut, coverage),
        *_share(info, "error_rate", wrecked, came),
        *_credit(info, judged, coverage),
        *_lengths(info, judged, coverage),
        *_of_repeats(info, judged, coverage),
    ]
    asked: dict[str, int] = {}
    subset_of = {problem.problem_id: problem.subset for problem in problems}
    for row in rows:
        if subset := subset_of.get(row["problem_id"]):
            asked[subset] = asked.get(subset, 0) + 1
    for subset in sorted(asked):
        part = [(p.problem_id, v.correct) for _, p, v in judged if p.subset == subset]
        metrics += _share(info, "accuracy", part, len(part) / asked[subset], subset)
    return metrics


def _share(
    info: BenchmarkInfo,
    name: str,
    outcomes: Sequence[tuple[str, bool]],
    coverage: float,
    subset: str = "",
) -> list[MetricRecord]:
    """Make a metric, or none where nothing was observed."""
    if not outcomes:
        return []
    return [_record(info, name, clustered_proportion(outcomes), coverage, subset)]


def _of_repeats(
    info: BenchmarkInfo, judged: Sequence[Judged], coverage: float
) -> list[MetricRecord]:
    """Make pass@k, maj@n and G-pass@n where problems were asked more than once.

    A problem counts where it has as many judged answers as the metric looks at.
    """
    votes: dict[str, list[tuple[str | None, bool]]] = {}
    for _, problem, verdict in judged:
        # Right answers agree, however they are written.
        said = "" if verdict.correct else verdict.extracted
        votes.setdefault(problem.problem_id, []).append((said, verdict.correct))
    most = max(map(len, votes.values()), default=0)
    complete = [one for one in votes.values() if len(one) == most]
    values: dict[str, list[float]] = {}
    for k in ks_for(most):
        enough = [one for one in votes.values() if len(one) >= k]
        values[f"pass@{k}"] = [pass_at_k(len(one), _right(one), k) for one in enough]
    if most > 1:
        # Programs have no final answer by which they could agree.
        if any(verdict.extracted is not None for *_, verdict in judged):
            values[f"maj@{most}"] = [majority(one) for one in complete]
        for share in STABLE:
            values[f"g-pass@{most}_{share}"] = [
                g_pass_at_k(most, _right(one), most, share) for one in complete
            ]
    return [
        _record(info, name, mean_over_problems(each, len(judged)), coverage)
        for name, each in values.items()
    ]


def _right(votes: Sequence[tuple[str | None, bool]]) -> int:
    return sum(correct for _, correct in votes)


def _lengths(info: BenchmarkInfo, judged: Sequence[Judged], coverage: float) -> list[MetricRecord]:
    """Make the mean length of an answer in tokens, with an error clustered by problem."""
    lengths = [(p.problem_id, row["answer"]["output_tokens"]) for row, p, _ in judged]
    known = [(problem, tokens) for problem, tokens in lengths if tokens is not None]
    return [_mean(info, "output_tokens", known, coverage)] if known else []


def _credit(info: BenchmarkInfo, judged: Sequence[Judged], coverage: float) -> list[MetricRecord]:
    """Make the mean credit where a judge gave any."""
    if all(verdict.credit is None for *_, verdict in judged):
        return []
    given = [
        (p.problem_id, float(verdict.correct) if verdict.credit is None else verdict.credit)
        for _, p, verdict in judged
    ]
    return [_mean(info, "credit", given, coverage, most=1.0)]


def _mean(
    info: BenchmarkInfo,
    name: str,
    values: Sequence[tuple[str, float]],
    coverage: float,
    *,
    most: float = math.inf,
) -> MetricRecord:
    """Make the mean of values from 0 to ``most``, with a normal interval inside these bounds."""
    mean = clustered_mean(values)
    half = Z_95 * (mean.stderr or 0.0)
    low, high = max(0.0, mean.value - half), min(most, mean.value + half)
    estimate = Proportion(mean.value, mean.stderr, low, high, mean.n, mean.clusters)
    return _record(info, name, estimate, coverage)


def _record(
    info: BenchmarkInfo, name: str, estimate: Proportion, coverage: float, subset: str = ""
) -> MetricRecord:
    return MetricRecord(
        benchmark=info.name,
        benchmark_version=info.version,
        metric=name,
        subset=subset,
        value=estimate.value,
        stderr=estimate.stderr,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        n=estimate.n,
        coverage=coverage,
        partial=coverage < 1,
        judge_version=info.judge_version,
    )
