"""Programming: one problem, one program, hidden tests."""

import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightshard.benchmarks import sources
from nightshard.benchmarks.base import METRICS, REASONING, BenchmarkInfo, Problem, Verdict, chat
from nightshard.benchmarks.sources import HubSource, Row
from nightshard.core.errors import UserError
from nightshard.core.requests import Message

if TYPE_CHECKING:
    from nightshard.benchmarks.judges.code import CodeTest

REPOSITORY = "livecodebench/code_generation_lite"
FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")
"""Release n holds the first n files; see the dataset's card."""

_PROGRAM = (
    "{question}\n\n"
    "Write a Python 3 program that reads the input from standard input and prints the answer to "
    "standard output. Think it through first, then give the whole program in one block that begins "
    "with ```python and ends with ```."
)
_FUNCTION = (
    "{question}\n\n"
    "Complete this Python 3 code:\n\n```python\n{starter}\n```\n\n"
    "Think it through first, then give the whole solution, with the class and method named as "
    "above, in one block that begins with ```python and ends with ```."
)
_JUDGE = "code-1"


class _NoClasses(pickle.Unpickler):
    """Decodes texts, numbers and containers; whatever would run code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


@dataclass(frozen=True, slots=True)
class LiveCodeBench:
    """One release of LiveCodeBench; its subsets are the difficulties.

    Attributes:
        info: what it is.
        release: number of the release, from 1.
    """

    info: BenchmarkInfo
    release: int

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems from the Hub or from a local file with the same columns."""
        if source:
            where, rows = sources.read_rows(self.info.name, source, None)
        else:
            where = f"{REPOSITORY} on the Hub"
            rows = sources.read_hub_files(self.info.name, REPOSITORY, FILES[: self.release])

        def make(_: int, place: str, row: Row) -> Problem:
            try:
                return _problem(row)
            except KeyError as missing:
                like = f"those of {REPOSITORY}"
                raise sources.no_column(missing, row, f"{place} of {where}", like) from None
            except (ValueError, zlib.error, pickle.UnpicklingError, EOFError) as error:
                raise UserError(
                    f"The tests at {place} of {where} cannot be decoded ({error}); get it again."
                ) from None

        problems = sources.collect(rows, make, where)
        sources.check_count(self.info.name, problems, where, None if source else self.info.problems)
        return problems

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem, with the starter code where there is one."""
        starter = str(json.loads(problem.gold)["starter"])
        template = _FUNCTION if starter else _PROGRAM
        return chat(template.format(question=problem.question, starter=starter), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Run the answer's program against every test, in the sandbox."""
        from nightshard.benchmarks.judges import code as judge  # noqa: PLC0415 (see the registry)

        gold = json.loads(problem.gold)
        return judge.judge(list(tests_of(gold)), gold["function"], text)


def tests_of(gold: Mapping[str, Any]) -> "Iterator[CodeTest]":
    """Yield the public tests, then the private ones.

    Raises:
        ValueError: the private tests are not what the dataset has.
        pickle.UnpicklingError: decoding them would run code.
    """
    from nightshard.benchmarks.judges.code import CodeTest  # noqa: PLC0415

    for one in [*json.loads(gold["public"]), *_private(gold["private"])]:
        yield CodeTest(str(one["input"]), str(one["output"]))


def _private(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        value: list[Any] = json.loads(text)
        return value
    packed = zlib.decompress(base64.b64decode(text))
    unpacked = _NoClasses(io.BytesIO(packed)).load()
    decoded: list[Any] = json.loads(unpacked)
    return decoded


def _problem(row: Mapping[str, Any]) -> Problem:
    metadata = json.loads(row["metadata"] or "{}")
    starter, name = str(row["starter_code"] or "").strip(), metadata.get("func_name")
    function = None
    if name:
        function = f"Solution.{name}" if "class Solution" in starter or not starter else str(name)
    # The private tests stay packed: unpacked, a release is several gigabytes.
    gold = {
        "starter": starter,
        "function": function,
        "public": row["public_test_cases"],
        "private": row["private_test_cases"],
    }
    if not list(tests_of(gold)):
        raise ValueError("there are none")
    question = str(row["question_content"]).strip()
    return Problem(str(row["question_id"]), question, json.dumps(gold), row["difficulty"] or None)


def _release(name: str, release: int, problems: int, repeats: int) -> LiveCodeBench:
    info = BenchmarkInfo(
        name=name,
        title=f"{name}: {problems} programming problems of release {release}, {repeats} times",
        version="1",
        judge_version=_JUDGE,
        problems=problems,
        repeats=repeats,
        sampling=REASONING,
        expected_tokens=9000,
        metrics=METRICS,
        source=f"Hugging Face Hub: {REPOSITORY}, release_v{release}",
        sandboxed=True,
    )
    return LiveCodeBench(info, release)


@dataclass(frozen=True, slots=True)
class HumanEval:
    """Functions from their signature and docstring, examined by assertions."""

    info: BenchmarkInfo

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems from the Hub or from a local file with the same columns."""
        where, rows = sources.read_rows(self.info.name, source or None, _HUMAN_EVAL)

        def make(_: int, place: str, row: Row) -> Problem:
            for name in ("task_id", "prompt", "test", "entry_point"):
                if not row.get(name):
                    like = f"those of {_HUMAN_EVAL.path}"
                    raise sources.no_column(name, row, f"{place} of {where}", like)
            gold = {"name": row["entry_point"], "prompt": row["prompt"], "test": row["test"]}
            return Problem(str(row["task_id"]), str(row["prompt"]), json.dumps(gold))

        problems = sources.collect(rows, make, where)
        sources.check_count(self.info.name, problems, where, None if source else self.info.problems)
        return problems

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem."""
        return chat(_COMPLETE.format(question=problem.question.strip()), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Let the problem's assertions examine the answer's function, each in its own sandbox."""
        from nightshard.benchmarks.judges import code as judge  # noqa: PLC0415 (see the registry)

        gold = json.loads(problem.gold)
        # What stands before the function: imports, and functions that it and its tests use.
        given = gold["prompt"].partition(f"def {gold['name']}(")[0]
        # One problem's test calls the function by its own name as well.
        exam = f"{gold['name']} = candidate\n{gold['test']}\ncheck(candidate)\n"
        return judge.judge_by_exam(given, gold["name"], exam, text)


_COMPLETE = (
    "Complete this Python 3 function:\n\n```python\n{question}\n```\n\n"
    "Think it through first, then give the whole function, with its signature, in one block that "
    "begins with ```python and ends with ```."
)
_HUMAN_EVAL = HubSource("openai/openai_humaneval", split="test")

CODE_BENCHMARKS = (
    HumanEval(
        BenchmarkInfo(
            name="HumanEval",
            title="HumanEval: 164 Python functions",
            version="1",
            judge_version=_JUDGE,
            problems=164,
            repeats=1,
            sampling=REASONING,
            expected_tokens=1500,
            metrics=METRICS,
            source=f"Hugging Face Hub: {_HUMAN_EVAL.path}",
            sandboxed=True,
        )
    ),
    _release("LiveCodeBench", 2, 511, 6),
    _release("LiveCodeBenchV5", 5, 880, 3),
    _release("LiveCodeBenchV6", 6, 1055, 3),
)
