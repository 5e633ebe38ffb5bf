"""What a benchmark is."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nightshard.core.requests import Message, Sampling


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its gold answer. It leaves the control plane only to be judged.

    Attributes:
        problem_id: unique inside the benchmark.
        question: as it is shown to the model, inside the benchmark's prompt.
        gold: the right answer, in the form that the benchmark's judge reads.
        subset: the part of the benchmark that it belongs to, None where there are none.
    """

    problem_id: str
    question: str
    gold: str
    subset: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of one answer.

    Attributes:
        correct: whether the answer is right.
        extracted: the part of the text that was taken for the final answer, None if none was.
        reason: a few words on how that was decided.
        credit: from 0 to 1, where the benchmark's own rules or metric know more than right and
            wrong; None stands for 1 where the answer is right and 0 where it is not.
    """

    correct: bool
    extracted: str | None
    reason: str
    credit: float | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkInfo:
    """What can be said of a benchmark without loading it.

    Attributes:
        name: registry name, for example ``MATH500``.
        title: one line for a form.
        version: changes whenever the prompt or the questions change; part of every request id.
        judge_version: changes whenever the same answer may be judged differently.
        problems: number of problems that the benchmark's own source holds.
        repeats: how often each problem is asked by default.
        sampling: default sampling; its seed is not used, since every request gets its own.
        expected_tokens: rough length of an answer in tokens, for balancing shards only.
        metrics: names of the metrics, the main one first.
        source: where the questions come from, for a person.
        gated: whether their owner lets nobody publish them; they never leave private places.
        sandboxed: whether judging runs code that a model wrote, which needs the sandbox.
    """

    name: str
    title: str
    version: str
    judge_version: str
    problems: int
    repeats: int
    sampling: Sampling
    expected_tokens: int
    metrics: tuple[str, ...]
    source: str
    gated: bool = False
    sandboxed: bool = False


GATED_DATASETS = frozenset({"Idavidrein/gpqa"})
"""Datasets of the Hub whose owners let nobody publish their questions, however they are asked."""

REASONING = Sampling(temperature=0.7, top_p=0.95, max_tokens=32768)
"""The predecessor's sampling, with room for long reasoning."""

METRICS = ("accuracy", "truncation_rate", "error_rate")
"""Metrics of every benchmark whose answers are right or wrong."""


class Benchmark(Protocol):
    """A benchmark: questions, prompts and a judge."""

    @property
    def info(self) -> BenchmarkInfo:
        """What can be said of it without loading it."""

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems, in the benchmark's own order.

        Args:
            source: a local ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file in place of the
                benchmark's own source.

        Raises:
            UserError: the questions cannot be had or cannot be used.
        """

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem."""

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Judge one answer; never raises on any text.

        It sets no time limit of its own; :class:`~nightshard.benchmarks.judges.pool.JudgePool`
        runs it under one.
        """


@runtime_checkable
class Warm(Protocol):
    """A benchmark whose judge has to be made ready first, which is not charged to an answer."""

    def warm(self, problem: Problem) -> None:
        """Make ready for a problem; quick where that was done before."""


def chat(prompt: str, system_prompt: str | None) -> list[Message]:
    """Make the messages of a single question, after the system prompt if there is one."""
    messages: list[Message] = []
    if system_prompt:
        messages.append({"role": "system", "content": system_prompt})
    messages.append({"role": "user", "content": prompt})
    return messages
