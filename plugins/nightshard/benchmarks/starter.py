"""Starter: short word problems that come with Nightshard, so that a first run needs no Hub."""

from pathlib import Path

from nightshard.benchmarks import sources
from nightshard.benchmarks.base import METRICS, BenchmarkInfo, Problem, Verdict, chat
from nightshard.benchmarks.sources import Columns
from nightshard.core.requests import Message, Sampling

QUESTIONS = Path(__file__).with_name("starter.jsonl")

_PROMPT = (
    "{question}\n\n"
    "Think briefly, then end with the answer alone, a number or a single word, inside \\boxed{{}}."
)

_INFO = BenchmarkInfo(
    name="Starter",
    title="Starter: 60 short word problems in arithmetic, dates, units and logic",
    version="1",
    judge_version="starter-1",
    problems=60,
    repeats=1,
    sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=256),
    expected_tokens=120,
    metrics=METRICS,
    source="bundled with Nightshard",
)


class Starter:
    """The bundled benchmark; its subsets are the topics."""

    @property
    def info(self) -> BenchmarkInfo:
        """What it is."""
        return _INFO

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the bundled problems, or those of a local file in the same form."""
        return sources.load(
            _INFO.name,
            source or str(QUESTIONS),
            None,
            Columns(subset=("subset", "topic")),
            expected=None if source else _INFO.problems,
        )

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem."""
        return chat(_PROMPT.format(question=problem.question), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Compare words without regard to case, anything else as mathematics."""
        # See MathBenchmark.judge: the scorer's import is slow.
        from nightshard.benchmarks.judges import math as judge  # noqa: PLC0415

        return judge.judge(problem.gold, text)
