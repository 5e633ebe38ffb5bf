"""Scores: missing is not wrong, and one benchmark's failure leaves the others standing."""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem, Verdict
from nightshard.benchmarks.judges.pool import JudgeError, Judgement, Outcome
from nightshard.benchmarks.requests import build_requests
from nightshard.core.requests import Request
from nightshard.results.arrow import MERGED_SCHEMA, VERDICT_SCHEMA, requests_to_table
from nightshard.results.records import MetricRecord
from nightshard.results.score import ScoreCard, score

pytestmark = pytest.mark.unit

PROBLEMS = {
    "AIME24": [Problem(f"a{i}", f"q{i}", str(i)) for i in range(3)],
    "MATH500": [
        Problem("m0", "q", "0", "Algebra"),
        Problem("m1", "q", "1", "Algebra"),
        Problem("m2", "q", "2", "Geometry"),
    ],
}


def ask(**repeats: int) -> list[Request]:
    return [
        request
        for name, number in repeats.items()
        for request in build_requests(registry.get(name), PROBLEMS[name], repeats=number)
    ]


def answered(requests: list[Request], texts: list[str | None], finish: str = "stop") -> pa.Table:
    """Give each request a text; None is an error, an empty text no answer at all."""
    rows: list[dict[str, Any]] = [
        {
            "request_id": request.request_id,
            "benchmark": request.benchmark,
            "problem_id": request.problem_id,
            "repeat_idx": request.repeat_idx,
            "text": text,
            "finish_reason": "error" if text is None else finish,
            "error": "too long" if text is None else None,
        }
        for request, text in zip(requests, texts, strict=True)
        if text != ""
    ]
    return pa.Table.from_pylist(rows, schema=MERGED_SCHEMA)


def by_equality(judgements: Iterable[Judgement]) -> list[Outcome]:
    return [Verdict(j.text == j.problem.gold, j.text, "by equality") for j in judgements]


def metric(card: ScoreCard, benchmark: str, name: str, subset: str = "") -> MetricRecord:
    (found,) = [
        m for m in card.metrics if (m.benchmark, m.metric, m.subset) == (benchmark, name, subset)
    ]
    return found


def run(requests: list[Request], answers: pa.Table, judge: Any = by_equality) -> ScoreCard:
    return score(requests_to_table(requests), PROBLEMS, answers, judge=judge)


def test_accuracy_is_the_mean_over_repeats_with_an_error_clustered_by_problem() -> None:
    requests = ask(AIME24=4)
    right = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    texts = [r.problem_id[1:] if ok else "9" for r, ok in zip(requests, right, strict=True)]
    card = run(requests, answered(requests, list(texts)))
    accuracy = metric(card, "AIME24", "accuracy")
    assert accuracy.value == pytest.approx(0.5)
    # The problems' means are 1, 1/2 and 0: standard deviation 1/2, over three problems.
    assert accuracy.stderr == pytest.approx(0.5 / 3**0.5)
    assert (accuracy.n, accuracy.coverage, accuracy.partial) == (12, 1.0, False)
    assert not card.partial


def test_repeats_tell_pass_at_k_the_majority_and_stability() -> None:
    requests = ask(AIME24=4)
    right = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    texts = [r.problem_id[1:] if ok else "9" for r, ok in zip(requests, right, strict=True)]
    card = run(requests, answered(requests, list(texts)))
    values = {one.metric: one.value for one in card.metrics if "@" in one.metric}
    assert values == {
        "pass@2": pytest.approx((1 + 5 / 6 + 0) / 3),
        "pass@4": pytest.approx(2 / 3),
        "maj@4": pytest.approx((1 + 0.5 + 0) / 3),
        "g-pass@4_0.5": pytest.approx(2 / 3),
        "g-pass@4_1.0": pytest.approx(1 / 3),
    }
    assert metric(card, "AIME24", "pass@4").stderr == pytest.approx(1 / 3)


def test_a_problem_that_lacks_repeats_counts_where_it_has_enough() -> None:
    requests = ask(AIME24=2)
    card = run(requests, answered(requests, ["0", "9", "1", "", "9", "9"]))
    found = metric(card, "AIME24", "pass@2")
    assert (found.value, found.coverage, found.partial) == (0.5, pytest.approx(5 / 6), True)


def test_the_mean_length_of_an_answer_is_told_in_tokens() -> None:
    requests = ask(MATH500=1)
    answers = answered(requests, ["0", "1", "2"])
    tokens = pa.array([10, 20, 60], answers.schema.field("output_tokens").type)
    at = answers.schema.get_field_index("output_tokens")
    found = metric(
        run(requests, answers.set_column(at, "output_tokens", tokens)), "MATH500", "output_tokens"
    )
    assert found.value == pytest.approx(30)
    assert found.stderr == pytest.approx(700**0.5 / 3**0.5)


def test_partial_credit_has_a_mean_of_its_own_and_no_part_in_accuracy() -> None:
    requests = ask(AIME24=2)
    given = [None, 0.25, 0.75, None, 0.0, 0.5]

    def by_rule(judgements: Iterable[Judgement]) -> list[Outcome]:
        pairs = zip(judgements, given, strict=True)
        return [Verdict(credit is None, one.text, "", credit) for one, credit in pairs]

    card = run(requests, answered(requests, ["1"] * 6), judge=by_rule)
    assert metric(card, "AIME24", "accuracy").value == pytest.approx(2 / 6)
    assert metric(card, "AIME24", "credit").value == pytest.approx(3.5 / 6)
    assert metric(card, "AIME24", "credit").ci_low >= 0
    assert metric(card, "AIME24", "credit").ci_high <= 1
    assert card.verdicts.column("credit").to_pylist() == given


def test_an_error_is_no_wrong_answer_and_marks_the_score_as_partial() -> None:
    requests = ask(MATH500=1)
    card = run(requests, answered(requests, ["0", None, "9"]))
    accuracy = metric(card, "MATH500", "accuracy")
    assert (accuracy.value, accuracy.n) == (0.5, 2)
    assert accuracy.coverage == pytest.approx(2 / 3)
    assert accuracy.partial
    assert card.partial
    assert metric(card, "MATH500", "error_rate").value == pytest.approx(1 / 3)
    assert card.verdicts.num_rows == 2


def test_a_missing_answer_lowers_the_coverage_alone() -> None:
    requests = ask(MATH500=1)
    card = run(requests, answered(requests, ["0", "1", ""]))
    accuracy = metric(card, "MATH500", "accuracy")
    assert (accuracy.value, accuracy.coverage, accuracy.partial) == (
        1.0,
        pytest.approx(2 / 3),
        True,
    )
    error_rate = metric(card, "MATH500", "error_rate")
    assert (error_rate.value, error_rate.coverage) == (0.0, pytest.approx(2 / 3))


def test_subsets_have_their_own_accuracy_and_coverage() -> None:
    requests = ask(MATH500=1)
    card = run(requests, answered(requests, ["0", None, "9"]))
    algebra = metric(card, "MATH500", "accuracy", "Algebra")
    geometry = metric(card, "MATH500", "accuracy", "Geometry")
    assert (algebra.value, algebra.n, algebra.coverage) == (1.0, 1, 0.5)
    assert (geometry.value, geometry.n, geometry.coverage) == (0.0, 1, 1.0)


def test_truncated_answers_are_counted() -> None:
    requests = ask(MATH500=1)
    card = run(requests, answered(requests, ["0", "1", "2"], finish="length"))
    assert metric(card, "MATH500", "truncation_rate").value == 1.0


def test_a_broken_judge_of_one_benchmark_leaves_the_others_standing() -> None:
    def judge(judgements: Iterable[Judgement]) -> list[Outcome]:
        work = list(judgements)
        if work[0].benchmark == "AIME24":
            return [JudgeError("TypeError: no such thing") for _ in work]
        return by_equality(work)

    requests = ask(AIME24=2, MATH500=1)
    card = run(requests, answered(requests, ["0"] * 9), judge)
    assert list(card.failures) == ["AIME24"]
    assert "failed at problem 'a0': TypeError: no such thing" in card.failures["AIME24"]
    assert {m.benchmark for m in card.metrics} == {"MATH500"}
    assert set(card.verdicts.column("benchmark").to_pylist()) == {"MATH500"}
    assert card.partial


def test_a_judge_that_raises_leaves_the_others_standing() -> None:
    def judge(judgements: Iterable[Judgement]) -> list[Outcome]:
        work = list(judgements)
        if work[0].benchmark == "AIME24":
            raise ZeroDivisionError("division by zero")
        return by_equality(work)

    requests = ask(AIME24=1, MATH500=1)
    card = run(requests, answered(requests, ["0"] * 6), judge)
    assert card.failures == {
        "AIME24": "AIME24 could not be scored: ZeroDivisionError: division by zero"
    }
    assert metric(card, "MATH500", "accuracy").n == 3


def test_a_benchmark_with_errors_only_has_no_accuracy_and_says_so() -> None:
    requests = ask(MATH500=1)
    card = run(requests, answered(requests, [None, None, None]))
    assert [m.metric for m in card.metrics] == ["error_rate"]
    assert card.failures["MATH500"].endswith("among 3 requests; the first error: too long")


def test_answers_to_problems_that_are_not_stored_are_not_guessed() -> None:
    requests = ask(MATH500=1)
    card = score(
        requests_to_table(requests), {}, answered(requests, ["0", "1", "2"]), judge=by_equality
    )
    assert "no problem 'm0' among the 0 stored with this run" in card.failures["MATH500"]


def test_every_score_names_the_benchmark_s_and_the_judge_s_version() -> None:
    requests = ask(MATH500=1)
    card = run(requests, answered(requests, ["0", "1", "2"]))
    info = registry.info("MATH500")
    assert {(m.benchmark_version, m.judge_version) for m in card.metrics} == {
        (info.version, info.judge_version)
    }
    assert {m.metric for m in card.metrics if not m.subset} == set(info.metrics)


def test_a_verdict_can_be_traced_to_its_request() -> None:
    requests = ask(AIME24=2)
    card = run(requests, answered(requests, ["0"] * 6))
    assert card.verdicts.schema.equals(VERDICT_SCHEMA)
    assert card.verdicts.column("request_id").to_pylist() == [r.request_id for r in requests]
    assert card.verdicts.column("correct").to_pylist() == [True, True] + [False] * 4


def test_a_score_card_survives_json() -> None:
    requests = ask(AIME24=1, MATH500=1)
    card = run(requests, answered(requests, [None, None, None, "0", "1", "2"]))
    again = ScoreCard.from_dict(json.loads(json.dumps(card.to_dict())), card.verdicts)
    assert again == card


def test_the_real_judges_score_a_small_run() -> None:
    requests = ask(AIME24=2, MATH500=1)
    texts = [f"So it is \\boxed{{{int(r.problem_id[1:])}}}." for r in requests]
    card = score(requests_to_table(requests), PROBLEMS, answered(requests, list(texts)))
    assert card.failures == {}
    assert [metric(card, name, "accuracy").value for name in PROBLEMS] == [1.0, 1.0]
