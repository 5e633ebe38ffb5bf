"""Multiple choice: one question, options with letters, one letter as the answer."""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nightshard.benchmarks import sources
from nightshard.benchmarks.base import METRICS, REASONING, BenchmarkInfo, Problem, Verdict, chat
from nightshard.benchmarks.sources import HubSource, Row
from nightshard.core.requests import Message

LETTERS = "ABCDEFGHIJ"

_PROMPT = (
    "{question}\n\n"
    "Reason step by step about the options. When you have decided, give the letter of the one "
    "right option, alone, inside \\boxed{{}}."
)

JUDGE = "choice-1"


@dataclass(frozen=True, slots=True)
class Question:
    """One question before it has letters.

    Attributes:
        problem_id: unique inside the benchmark; empty takes the number of the row.
        text: the question alone.
        options: in the order in which they are shown.
        right: index of the right one.
        subset: part of the benchmark.
    """

    problem_id: str
    text: str
    options: Sequence[str]
    right: int
    subset: str | None


@dataclass(frozen=True, slots=True)
class ChoiceBenchmark:
    """A benchmark of the family.

    Attributes:
        info: what it is.
        hub: where its questions lie on the Hub, None where they are in a file.
        read: makes a question of a row; raises KeyError for a column that is not there, and
            ValueError with a sentence.
    """

    info: BenchmarkInfo
    hub: HubSource | None
    read: Callable[[Row], Question]

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems from the Hub or from a local file with the same columns."""
        like = f"those of {self.hub.path}" if self.hub else "question, options and answer"

        def read(index: int, row: Row) -> Problem:
            question = self.read(row)
            return _lettered(question.problem_id or str(index), question)

        return sources.load_rows(self.info, source, self.hub, read, like)

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem."""
        return chat(_PROMPT.format(question=problem.question), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Compare the chosen letter with the gold."""
        from nightshard.benchmarks.judges import choice as judge  # noqa: PLC0415 (see the registry)

        return judge.judge(problem.gold, text)


def _lettered(problem_id: str, question: Question) -> Problem:
    lines = [f"{LETTERS[at]}) {option}" for at, option in enumerate(question.options)]
    shown = "\n".join([question.text, "", *lines])
    return Problem(problem_id, shown, LETTERS[question.right], question.subset)


def shuffled(options: Sequence[str], key: str) -> tuple[list[str], int]:
    """Shuffle options, the right one first, by a generator of this question's own.

    Args:
        options: the right one, then the wrong ones.
        key: what the order depends on, so that it is the same in each run and another one for
            each question.

    Returns:
        The options as shown, and the index of the right one.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    order = list(range(len(options)))
    random.Random(seed).shuffle(order)  # noqa: S311 (no secret)
    return [options[at] for at in order], order.index(0)


def said(row: Row, column: str) -> str:
    """Return a column's text.

    Raises:
        KeyError: there is no such column.
        ValueError: it is empty.
    """
    text = str(row[column] if row[column] is not None else "").strip()
    if not text:
        raise ValueError(f"{column} is empty; fill it in or remove the row.")
    return text


def _gpqa(row: Row) -> Question:
    columns = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
    text = said(row, "Question")
    options, right = shuffled([said(row, name) for name in columns], text)
    domain = row.get("High-level domain")
    return Question(str(row.get("Record ID") or ""), text, options, right, domain)


def _mmlu_pro(row: Row) -> Question:
    options = [str(option) for option in row["options"]]
    right = row["answer_index"]
    if len(options) > len(LETTERS) or not 0 <= right < len(options):
        raise ValueError(f"answer_index {right} is none of {len(options)} options.")
    return Question(
        str(row["question_id"]), said(row, "question"), options, right, row.get("category")
    )


CHOICE_BENCHMARKS = (
    ChoiceBenchmark(
        BenchmarkInfo(
            name="GPQADiamond",
            title="GPQADiamond: 198 graduate-level science questions, 3 times",
            version="1",
            judge_version=JUDGE,
            problems=198,
            repeats=3,
            sampling=REASONING,
            expected_tokens=7000,
            metrics=METRICS,
            source="Hugging Face Hub: Idavidrein/gpqa, gpqa_diamond (ask there for access)",
            gated=True,
        ),
        HubSource("Idavidrein/gpqa", split="train", name="gpqa_diamond"),
        _gpqa,
    ),
    ChoiceBenchmark(
        BenchmarkInfo(
            name="MMLUPro",
            title="MMLUPro: 12,032 questions of 14 subjects with up to ten options",
            version="1",
            judge_version=JUDGE,
            problems=12032,
            repeats=1,
            sampling=REASONING,
            expected_tokens=2000,
            metrics=METRICS,
            source="Hugging Face Hub: TIGER-Lab/MMLU-Pro",
        ),
        HubSource(
            "TIGER-Lab/MMLU-Pro",
            split="test",
            revision="527feea0afed1de15a8c115abf7be4c912123315",
        ),
        _mmlu_pro,
    ),
)
