"""Competition mathematics: one question, one boxed answer, equality as mathematics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nightshard.benchmarks import sources
from nightshard.benchmarks.base import METRICS, REASONING, BenchmarkInfo, Problem, Verdict, chat
from nightshard.benchmarks.sources import Columns, HubSource
from nightshard.core.requests import Message

_PROMPT = (
    "{question}\n\n"
    "Work through the problem one step at a time. When you are done, state the result once more, "
    "alone, inside \\boxed{{}}."
)

JUDGE = "math-1"


@dataclass(frozen=True, slots=True)
class MathBenchmark:
    """A benchmark of the family; all that distinguishes them is data.

    Attributes:
        info: what it is.
        hub: where its questions lie on the Hub, None where they are in a file.
        columns: under which names a file may hold them.
    """

    info: BenchmarkInfo
    hub: HubSource | None
    columns: Columns

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems from the Hub or from a local file."""
        return sources.load(
            self.info.name,
            source or None,
            self.hub,
            self.columns,
            expected=None if source else self.info.problems,
        )

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem."""
        return chat(_PROMPT.format(question=problem.question), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Compare the final answer with the gold as mathematics."""
        # math-verify takes a second or more to import, which a DAG file must not pay.
        from nightshard.benchmarks.judges import math as judge  # noqa: PLC0415

        return judge.judge(problem.gold, text)


def _of_2023(row: Mapping[str, Any]) -> bool:
    return "/2023_AMC" in str(row.get("url", ""))


def _of_2024(row: Mapping[str, Any]) -> bool:
    return str(row.get("Year", "")) == "2024"


def _after_hashes(gold: str) -> str:
    """Return the answer of a GSM8K solution, which ends in ``#### 1,234``."""
    return gold.rpartition("####")[2].strip().replace(",", "")


def _math(
    name: str,
    title: str,
    hub: HubSource,
    *,
    problems: int,
    repeats: int,
    expected_tokens: int,
    columns: Columns | None = None,
) -> MathBenchmark:
    info = BenchmarkInfo(
        name=name,
        title=title,
        version="1",
        judge_version=JUDGE,
        problems=problems,
        repeats=repeats,
        sampling=REASONING,
        expected_tokens=expected_tokens,
        metrics=METRICS,
        source=f"Hugging Face Hub: {hub.path}",
    )
    return MathBenchmark(info, hub, columns or Columns())


MATH_BENCHMARKS = (
    _math(
        "MATH500",
        "MATH500: 500 problems of the MATH test set",
        HubSource(
            "HuggingFaceH4/MATH-500",
            split="test",
            revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        ),
        problems=500,
        repeats=1,
        expected_tokens=3000,
        columns=Columns(subset=("subject", "type")),
    ),
    _math(
        "AIME24",
        "AIME24: American Invitational Mathematics Examination 2024, 30 problems, 10 times",
        HubSource(
            "di-zhang-fdu/AIME_1983_2024",
            split="train",
            revision="3e2cc86390666c5c756622afc0eeb9e6194496bc",
            keep=_of_2024,
        ),
        problems=30,
        repeats=10,
        expected_tokens=9000,
    ),
    _math(
        "AIME25",
        "AIME25: American Invitational Mathematics Examination 2025, 30 problems, 10 times",
        HubSource("TIGER-Lab/AIME25", split="train"),
        problems=30,
        repeats=10,
        expected_tokens=9000,
    ),
    _math(
        "AMC23",
        "AMC23: American Mathematics Competitions 12 of 2023, 40 problems, 10 times",
        HubSource(
            "AI-MO/aimo-validation-amc",
            split="train",
            revision="69d78a4a2c840e82d69af6bc742bda09005f6316",
            keep=_of_2023,
        ),
        problems=40,
        repeats=10,
        expected_tokens=5000,
    ),
    _math(
        "HMMT25",
        "HMMT25: Harvard-MIT Mathematics Tournament of February 2025, 30 problems, 10 times",
        HubSource(
            "MathArena/hmmt_feb_2025",
            split="train",
            revision="6fdc4277120810ff75aa22d2d5489b91f7a262a1",
        ),
        problems=30,
        repeats=10,
        expected_tokens=9000,
        columns=Columns(problem_id=("problem_idx", "unique_id", "problem_id", "id")),
    ),
    _math(
        "GSM8K",
        "GSM8K: 1,319 grade school word problems",
        HubSource(
            "openai/gsm8k",
            split="test",
            name="main",
            revision="740312add88f781978c0658806c59bc2815b9866",
        ),
        problems=1319,
        repeats=1,
        expected_tokens=400,
        columns=Columns(clean_gold=_after_hashes),
    ),
)
