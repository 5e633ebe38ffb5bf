"""From answers to verdicts and scores."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Benchmark, Problem, Verdict
from nightshard.benchmarks.judges.pool import JudgeError, Judgement, JudgePool, Outcome
from nightshard.core.errors import NightshardError, UserError
from nightshard.results.arrow import VERDICT_SCHEMA
from nightshard.results.metrics import Judged, Row, benchmark_metrics, text_of
from nightshard.results.records import MetricRecord
from nightshard.results.store import read_batches

Judge = Callable[[Iterable[Judgement]], list[Outcome]]

_REQUEST_COLUMNS = ["request_id", "benchmark", "problem_id", "repeat_idx"]
SCORED, PARTIALLY_SCORED = "scored", "partially scored"

BATCH = 256
"""Answers that are read from their file at a time."""

_ANSWER_COLUMNS = ["request_id", "text", "output_tokens", "finish_reason", "error"]


@dataclass(frozen=True, slots=True)
class ScoreCard:
    """The scores of a run.

    Attributes:
        metrics: overall metrics of each benchmark, then the accuracy of its subsets. An accuracy's
            ``n`` counts judged answers; its coverage is their share of all that were asked for.
        verdicts: one row a judged answer (:data:`~nightshard.results.arrow.VERDICT_SCHEMA`).
        failures: benchmark → sentence, of those that could not be scored; the others stand.
    """

    metrics: list[MetricRecord]
    verdicts: pa.Table
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Whether any answer is missing or an error, or any benchmark failed."""
        return bool(self.failures) or any(metric.partial for metric in self.metrics)

    @property
    def status(self) -> str:
        """What the run is called in the database."""
        return PARTIALLY_SCORED if self.partial else SCORED

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the verdicts."""
        return {
            "metrics": [dataclasses.asdict(metric) for metric in self.metrics],
            "failures": dict(self.failures),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], verdicts: pa.Table | None = None) -> "ScoreCard":
        """Build from :meth:`to_dict`'s form."""
        return cls(
            metrics=[MetricRecord(**metric) for metric in value["metrics"]],
            verdicts=VERDICT_SCHEMA.empty_table() if verdicts is None else verdicts,
            failures=dict(value["failures"]),
        )


def score(
    requests: pa.Table,
    problems: Mapping[str, Sequence[Problem]],
    answers: pa.Table | UPath,
    *,
    judge: Judge | None = None,
    benchmark: Callable[[str], Benchmark] = registry.get,
) -> ScoreCard:
    """Judge every answer and compute each benchmark's metrics.

    A request without an answer, or whose answer is an error, is not judged: it lowers the coverage
    and marks the metrics as partial, and never counts as wrong.

    Args:
        requests: every request of the run.
        problems: benchmark → its problems.
        answers: as merged, a table or the file, of which some hundred texts are in memory at once;
            rows of other requests are not looked at.
        judge: judges many answers at once; by default on all cores.
        benchmark: finds a benchmark by name.

    Returns:
        The scores; benchmarks in the order of the requests.
    """
    judge = judge or JudgePool().judge
    by_benchmark: dict[str, list[Row]] = {}
    for row in requests.select(_REQUEST_COLUMNS).to_pylist():
        row["answer"] = None
        by_benchmark.setdefault(row["benchmark"], []).append(row)
    card = ScoreCard([], VERDICT_SCHEMA.empty_table())
    verdict_rows: list[Row] = []
    for name, rows in by_benchmark.items():
        try:
            info = benchmark(name).info
            given = _answers_of(name, answers)
            judged = _judge(name, rows, problems.get(name, ()), given, judge)
            metrics = benchmark_metrics(info, rows, judged, problems.get(name, ()))
        except NightshardError as error:
            card.failures[name] = str(error)
        except Exception as error:  # noqa: BLE001 (one benchmark must not take the others down)
            card.failures[name] = f"{name} could not be scored: {type(error).__name__}: {error}"
        else:
            card.metrics.extend(metrics)
            verdict_rows.extend(_verdict_row(row, verdict) for row, _, verdict in judged)
            if not judged:
                card.failures[name] = _nothing_to_judge(name, rows)
    table = pa.Table.from_pylist(verdict_rows, schema=VERDICT_SCHEMA)
    return dataclasses.replace(card, verdicts=table)


def _answers_of(name: str, answers: pa.Table | UPath) -> Iterator[Row]:
    """Yield a benchmark's answers, a few at a time in memory where they lie in a file."""
    if isinstance(answers, UPath):
        batches = read_batches(answers, ["benchmark", *_ANSWER_COLUMNS], BATCH)
    else:
        batches = iter(answers.select(["benchmark", *_ANSWER_COLUMNS]).to_batches(BATCH))
    for batch in batches:
        yield from batch.filter(pc.field("benchmark") == name).to_pylist()


def _judge(
    name: str,
    rows: Sequence[Row],
    problems: Sequence[Problem],
    answers: Iterable[Row],
    judge: Judge,
) -> list[Judged]:
    """Judge the answers that hold a text, and put each answer, without its text, into its row.

    Raises:
        UserError: a problem is not among those given.
        JudgeError: the judge is broken.
    """
    by_id = {problem.problem_id: problem for problem in problems}
    places = {row["request_id"]: place for place, row in enumerate(rows)}
    work: list[tuple[int, Problem]] = []

    def texts() -> Iterator[Judgement]:
        for answer in answers:
            place = places.get(answer["request_id"])
            if place is None:
                continue
            row, text = rows[place], answer["text"]
            row["answer"] = {**answer, "text": None if text is None else ""}
            if text_of(row) is None:
                continue
            if row["problem_id"] not in by_id:
                raise UserError(
                    f"{name} has no problem {row['problem_id']!r} among the {len(by_id)} stored "
                    "with this run; score it with the problems it was asked with."
                )
            work.append((place, by_id[row["problem_id"]]))
            yield Judgement(name, work[-1][1], str(text))

    outcomes = judge(texts())
    pairs = sorted(zip(work, outcomes, strict=True), key=lambda pair: pair[0][0])
    judged: list[Judged] = []
    for (place, problem), outcome in pairs:
        if isinstance(outcome, JudgeError):
            raise JudgeError(
                f"The judge of {name} failed at problem {problem.problem_id!r}: {outcome}"
            )
        judged.append((rows[place], problem, outcome))
    return judged


def _verdict_row(row: Row, verdict: Verdict) -> Row:
    return {
        **{name: row[name] for name in _REQUEST_COLUMNS},
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "reason": verdict.reason,
        "credit": verdict.credit,
    }


def _nothing_to_judge(name: str, rows: Sequence[Row]) -> str:
    errors = [row["answer"]["error"] for row in rows if row["answer"] is not None]
    first = next((error for error in errors if error), "none was given")
    return f"{name} has no answer to judge among {len(rows)} requests; the first error: {first}"
