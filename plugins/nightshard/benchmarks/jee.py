"""JEEBench: problems of India's JEE Advanced exam, of four kinds with a rule each."""

import json
from dataclasses import dataclass

from nightshard.benchmarks import sources
from nightshard.benchmarks.base import METRICS, REASONING, BenchmarkInfo, Problem, Verdict, chat
from nightshard.benchmarks.choice import said
from nightshard.benchmarks.sources import HubSource, Row
from nightshard.core.requests import Message

ONE, SEVERAL, INTEGER, NUMERIC = "MCQ", "MCQ(multiple)", "Integer", "Numeric"

_WANTED = {
    ONE: "Exactly one option is right. State its letter",
    SEVERAL: "One or more options are right. State the letters of all of them, such as BD,",
    INTEGER: "The answer is a non-negative whole number. State it",
    NUMERIC: "The answer is a number. State it as a decimal with two places",
}
_PROMPT = (
    "{question}\n\nReason step by step. {wanted} once more at the end, alone, inside \\boxed{{}}."
)
_HUB = HubSource("daman1209arora/jeebench", split="test")


@dataclass(frozen=True, slots=True)
class JeeBench:
    """The benchmark; its subsets are the subjects."""

    info: BenchmarkInfo
    hub: HubSource

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems from the Hub or from a local file with the same columns."""
        like = f"those of {self.hub.path}"
        return sources.load_rows(self.info, source, self.hub, _problem, like)

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem."""
        wanted = _WANTED[json.loads(problem.gold)["type"]]
        return chat(_PROMPT.format(question=problem.question, wanted=wanted), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Judge by the exam's rule for the problem's kind.

        As ``compute_score`` of the benchmark's authors does (github.com/dair-iitd/jeebench,
        compute_metrics.py): of several right options, some and no wrong one give a quarter each; a
        number may be off by 0.01.
        """
        from nightshard.benchmarks.judges import choice, number  # noqa: PLC0415 (see the registry)

        gold = json.loads(problem.gold)
        if gold["type"] == ONE:
            return choice.judge(gold["gold"], text)
        if gold["type"] == SEVERAL:
            return choice.judge_several(gold["gold"], text)
        return number.judge(gold["gold"], text, tolerance=0.01)


def _problem(index: int, row: Row) -> Problem:
    kind, gold, text = (said(row, name) for name in ("type", "gold", "question"))
    if kind not in _WANTED:
        raise ValueError(f"its type is {kind!r}; there are {', '.join(_WANTED)}.")
    subject = str(row.get("subject") or "") or None
    return Problem(str(index), text, json.dumps({"type": kind, "gold": gold}), subject)


JEE_BENCHMARKS = (
    JeeBench(
        BenchmarkInfo(
            name="JEEBench",
            title="JEEBench: 515 problems of an entrance exam, physics, chemistry, mathematics",
            version="1",
            judge_version="jee-1",
            problems=515,
            repeats=1,
            sampling=REASONING,
            expected_tokens=6000,
            metrics=("credit", *METRICS),
            source=f"Hugging Face Hub: {_HUB.path}",
        ),
        _HUB,
    ),
)
