"""Programming: one problem, one program, hidden tests."""

import base64
import functools
import io
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nightshard.benchmarks import sources
from nightshard.benchmarks.base import METRICS, REASONING, BenchmarkInfo, Problem, Verdict, chat
from nightshard.benchmarks.part import WHOLE, Part
from nightshard.benchmarks.sources import Row
from nightshard.core.errors import UserError
from nightshard.core.requests import Message

if TYPE_CHECKING:
    from nightshard.benchmarks.judges.code import CodeTest

REPOSITORY = "livecodebench/code_generation_lite"
REVISION = "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"
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
_JUDGE = "code-2"

_GIVEN = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins"),
)
PRELUDE = "\n".join(
    [f"from {name} import *" for name in (*_GIVEN, "typing")]
    + [f"import {name}" for name in _GIVEN]
    + ["sys.setrecursionlimit(50000)"]
)
"""What stands before every solution: starter code names ``List`` and imports nothing.

The official harness gives the same (lcb_runner, testing_util.py, ``import_string``).
"""


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
        part: which of its problems are asked.
    """

    info: BenchmarkInfo
    release: int
    part: Part = WHOLE

    def narrowed(self, text: str) -> "LiveCodeBench":
        """Return a part of it, named ``NAME@PART``.

        Args:
            text: a difficulty, a window of contest dates or both, such as
                ``hard+2024-08..2025-01``; see :meth:`Part.parse`.

        Raises:
            UserError: the text cannot be read.
        """
        info = replace(
            self.info,
            name=f"{self.info.name}@{text}",
            title=f"{self.info.name}: the problems of {text}",
        )
        return replace(self, info=info, part=Part.parse(info.name, text))

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems from the Hub or from a local file with the same columns."""
        if source:
            where, rows = sources.read_rows(self.info.name, source, None)
        else:
            where = f"{REPOSITORY} on the Hub"
            rows = sources.read_hub_files(
                self.info.name, REPOSITORY, FILES[: self.release], REVISION
            )

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

        kept: dict[str, bool] = {}

        def make_dated(index: int, place: str, row: Row) -> Problem:
            problem = make(index, place, row)
            kept[problem.problem_id] = self.part.holds(problem.subset, _date(row))
            return problem

        problems = sources.collect(rows, make_dated, where)
        sources.check_count(self.info.name, problems, where, None if source else self.info.problems)
        chosen = [one for one in problems if kept[one.problem_id]]
        if not chosen:
            raise UserError(f"{where} has no problem of {self.info.name}; choose a wider part.")
        return chosen

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem, with the starter code where there is one."""
        starter = str(json.loads(problem.gold)["starter"])
        template = _FUNCTION if starter else _PROGRAM
        return chat(template.format(question=problem.question, starter=starter), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Run the answer's program against every test, in the sandbox."""
        from nightshard.benchmarks.judges import code as judge  # noqa: PLC0415 (see the registry)

        function, tests = _unpacked(problem.gold)
        return judge.judge(tests, function, text, prelude=PRELUDE)


def tests_of(gold: Mapping[str, Any]) -> "Iterator[CodeTest]":
    """Yield the public tests, then the private ones.

    Raises:
        ValueError: the private tests are not what the dataset has.
        pickle.UnpicklingError: decoding them would run code.
    """
    from nightshard.benchmarks.judges.code import CodeTest  # noqa: PLC0415

    for one in [*json.loads(gold["public"]), *_private(gold["private"])]:
        yield CodeTest(str(one["input"]), str(one["output"]))


@functools.lru_cache(maxsize=2)
def _unpacked(gold: str) -> "tuple[str | None, tuple[CodeTest, ...]]":
    """Return what the tests call, and the tests; a problem's repeats are judged in a row."""
    value = json.loads(gold)
    return value["function"], tuple(tests_of(value))


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


def _date(row: Mapping[str, Any]) -> str:
    """Return the day of a problem's contest as YYYY-MM-DD, empty where it is not told."""
    return str(row.get("contest_date") or "")[:10]


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


CODE_BENCHMARKS = (
    _release("LiveCodeBench", 2, 511, 6),
    _release("LiveCodeBenchV3", 3, 612, 6),
    _release("LiveCodeBenchV4", 4, 713, 6),
    _release("LiveCodeBenchV5", 5, 880, 3),
    _release("LiveCodeBenchV6", 6, 1055, 3),
)
