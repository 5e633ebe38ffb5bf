"""Programming: one function, examined by assertions."""

import ast
import builtins
import json
from collections.abc import Callable
from dataclasses import dataclass

from nightshard.benchmarks import sources
from nightshard.benchmarks.base import METRICS, REASONING, BenchmarkInfo, Problem, Verdict, chat
from nightshard.benchmarks.sources import HubSource, Row
from nightshard.core.requests import Message

_COMPLETE = (
    "Complete this Python 3 function:\n\n```python\n{question}\n```\n\n"
    "Think it through first, then give the whole function, with its signature, in one block that "
    "begins with ```python and ends with ```."
)
_WRITE = (
    "{question}\n\n"
    "Think it through first, then give the whole Python 3 function, with the name that the tests "
    "use, in one block that begins with ```python and ends with ```."
)
_JUDGE = "code-2"


@dataclass(frozen=True, slots=True)
class Function:
    """One problem before it is put into words.

    Attributes:
        problem_id: unique inside the benchmark.
        question: what is shown.
        name: of the function.
        given: source that stands before the answer and before the exam.
        exam: assertions that call the function as ``candidate``.
    """

    problem_id: str
    question: str
    name: str
    given: str
    exam: str


@dataclass(frozen=True, slots=True)
class FunctionBenchmark:
    """A benchmark of the family.

    Attributes:
        info: what it is.
        hub: where its questions lie.
        prompt: has the place ``{question}``.
        read: makes a problem of a row; raises KeyError for a column that is not there or empty, and
            ValueError with a sentence.
    """

    info: BenchmarkInfo
    hub: HubSource
    prompt: str
    read: Callable[[Row], Function]

    def load(self, source: str | None = None) -> list[Problem]:
        """Load the problems from the Hub or from a local file with the same columns."""

        def read(_: int, row: Row) -> Problem:
            function = self.read(row)
            gold = {"name": function.name, "given": function.given, "exam": function.exam}
            return Problem(function.problem_id, function.question, json.dumps(gold))

        like = f"those of {self.hub.path}"
        return sources.load_rows(self.info, source, self.hub, read, like)

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Render the chat that asks the problem."""
        return chat(self.prompt.format(question=problem.question.strip()), system_prompt)

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Let the problem's assertions examine the answer's function, each in its own sandbox."""
        from nightshard.benchmarks.judges import code as judge  # noqa: PLC0415 (see the registry)

        gold = json.loads(problem.gold)
        return judge.judge_by_exam(gold["given"], gold["name"], gold["exam"], text)


def _filled(row: Row, *names: str) -> list[str]:
    for name in names:
        if not row.get(name) and row.get(name) != 0:
            raise KeyError(name)
    return [row[name] for name in names]


def _human_eval(row: Row) -> Function:
    task, prompt, test, name = map(str, _filled(row, "task_id", "prompt", "test", "entry_point"))
    # What stands before the function: imports, and functions that it and its tests use.
    given = prompt.partition(f"def {name}(")[0]
    # One problem's test calls the function by its own name as well.
    return Function(task, prompt, name, given, f"{name} = candidate\n{test}\ncheck(candidate)\n")


def _mbpp(row: Row) -> Function:
    task, tests = _filled(row, "task_id", "test_list")
    lines = [str(test) for test in tests]
    name = _called(lines)
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    # The extended tests of EvalPlus, which hold the others, are one text.
    exam = str(row["test"]) if isinstance(row.get("test"), str) else "\n".join(lines)
    shown = "\n".join([*([setup] if setup else ()), *lines])
    question = str(row.get("prompt") or _filled(row, "text")[0])
    asked = f"{question}\n\nIt has to pass these tests:\n\n```python\n{shown}\n```"
    return Function(str(task), asked, name, str(setup), f"{name} = candidate\n{exam}\n")


def _called(tests: list[str]) -> str:
    """Return the function that all tests call.

    Raises:
        ValueError: there is none, or no test can be read.
    """
    common: set[str] | None = None
    first: list[str] = []
    for test in tests:
        try:
            nodes = list(ast.walk(ast.parse(test)))
        except SyntaxError:
            raise ValueError(f"its test {test[:60]!r} is no Python.") from None
        calls = [
            one.func.id
            for one in nodes
            if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)
        ]
        first = first or calls
        common = set(calls) if common is None else common & set(calls)
    shared = [name for name in first if name in (common or ())]
    if not shared:
        raise ValueError("its tests call no function in common.")
    # One problem asks for a function that is called sum.
    return next((name for name in shared if not hasattr(builtins, name)), shared[0])


_Family = tuple[str, Callable[[Row], Function]]
_HUMAN_EVAL: _Family = (_COMPLETE, _human_eval)
_MBPP: _Family = (_WRITE, _mbpp)


def _benchmark(
    name: str, title: str, problems: int, hub: HubSource, family: _Family
) -> FunctionBenchmark:
    info = BenchmarkInfo(
        name=name,
        title=f"{name}: {title}",
        version="1",
        judge_version=_JUDGE,
        problems=problems,
        repeats=1,
        sampling=REASONING,
        expected_tokens=1500,
        metrics=METRICS,
        source=f"Hugging Face Hub: {hub.path}",
        sandboxed=True,
    )
    return FunctionBenchmark(info, hub, *family)


FUNCTION_BENCHMARKS = (
    _benchmark(
        "HumanEval",
        "164 Python functions",
        164,
        HubSource(
            "openai/openai_humaneval",
            split="test",
            revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
        ),
        _HUMAN_EVAL,
    ),
    _benchmark(
        "HumanEvalPlus",
        "164 Python functions with many more tests",
        164,
        HubSource(
            "evalplus/humanevalplus",
            split="test",
            revision="d32357cf319e50e9c8d8dab5ea876c72b0fd321b",
        ),
        _HUMAN_EVAL,
    ),
    _benchmark(
        "MBPP",
        "500 short Python functions",
        500,
        HubSource(
            "google-research-datasets/mbpp",
            split="test",
            name="full",
            revision="4bb6404fdc6cacfda99d4ac4205087b89d32030c",
        ),
        _MBPP,
    ),
    _benchmark(
        "MBPPPlus",
        "378 short Python functions with many more tests",
        378,
        HubSource(
            "evalplus/mbppplus",
            split="test",
            revision="b2d74c91837c3f2a20c1299ae98133cbe7cfa077",
        ),
        _MBPP,
    ),
)
