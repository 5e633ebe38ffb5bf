"""Does a program pass its tests? Each test runs in the sandbox; what is expected stays outside."""

import ast
import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from nightshard.benchmarks.base import Verdict
from nightshard.benchmarks.judges.sandbox.bubblewrap import Sandbox
from nightshard.benchmarks.judges.sandbox.programs import End, Limits, Program, Ran
from nightshard.benchmarks.judges.text import strip_thinking

LIMITS = Limits()

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)([^\n`]*)$", re.MULTILINE)

_WORDS = {
    End.FAILED: "the program failed",
    End.CPU: f"it took more than {LIMITS.cpu_s} s of processor time",
    End.WALL: f"it stood still for {LIMITS.wall_s:g} s",
    End.MEMORY: "it needs too much memory",
    End.OUTPUT: "it prints too much",
}


@dataclass(frozen=True, slots=True)
class CodeTest:
    """One test of a program.

    Attributes:
        given: standard input, or the arguments, one JSON value a line.
        expected: standard output, or the result as JSON.
    """

    given: str
    expected: str


def judge(
    tests: Sequence[CodeTest], function: str | None, text: str, *, prelude: str = ""
) -> Verdict:
    """Judge one answer: the code in its last fenced block has to pass every test.

    Args:
        tests: in the order in which they are run; the first that fails decides.
        function: what the tests call, for example ``Solution.add``; None for programs that read
            standard input.
        text: the whole answer.
        prelude: source that runs before the answer's.

    Raises:
        UserError: there is no sandbox here.
        SandboxError: it broke.
    """
    code = last_code(text)
    if code is None:
        return Verdict(False, None, "no code block")
    program = Program(code, prelude)
    for number, test in enumerate(tests, start=1):
        fault = _fault(program, function, test)
        if fault is not None:
            return Verdict(False, None, f"test {number} of {len(tests)}: {fault}")
    return Verdict(True, None, f"passes {len(tests)} tests")


def judge_by_exam(given: str, name: str, exam: str, text: str) -> Verdict:
    """Judge one answer by assertions about the function that it defines.

    The function runs in one sandbox and the assertions in another.

    Args:
        given: what the question shows of the program before the function, such as imports.
        name: the function.
        exam: assertions that call it as ``candidate``.
        text: the whole answer.

    Raises:
        UserError: there is no sandbox here.
        SandboxError: it broke.
    """
    code = last_code(text)
    if code is None:
        return Verdict(False, None, "no code block")
    program = Program(code, given)
    ran = _examiner().exam(
        given, exam, lambda arguments: _sandbox().call(program, name, arguments, LIMITS), LIMITS
    )
    if ran.end is End.WELL:
        return Verdict(True, None, "passes its tests")
    failed = f"a test fails ({ran.complaint[:160]})"
    return Verdict(False, None, failed if ran.end is End.FAILED else _WORDS[ran.end])


def last_code(text: str) -> str | None:
    """Return what the last complete fenced block outside of any thinking holds."""
    answer = strip_thinking(text)
    fences = list(_FENCE.finditer(answer))
    for start, end in reversed(list(_pairs(fences))):
        code = answer[start.end() + 1 : end.start()]
        if code.strip():
            return code
    return None


def _pairs(fences: Sequence[re.Match[str]]) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
    opened: re.Match[str] | None = None
    for fence in fences:
        # A fence with a language opens a block, also where the one before was never closed.
        if opened is None or fence[1].strip():
            opened = fence
        else:
            yield opened, fence
            opened = None


def _fault(program: Program, function: str | None, test: CodeTest) -> str | None:
    """Say what is wrong, None where the test passes."""
    if function is None:
        ran = _sandbox().run(program, test.given, LIMITS)
        passes = ran.end is End.WELL and same_output(ran.stdout, test.expected)
    else:
        arguments = [json.loads(line) for line in test.given.split("\n") if line.strip()]
        ran = _sandbox().call(program, function, repr(arguments), LIMITS)
        passes = ran.end is End.WELL and same_result(ran.stdout, test.expected)
    return None if passes else _words(ran)


def _words(ran: Ran) -> str:
    if ran.end is End.WELL:
        return "another output"
    said = ran.complaint[:120]
    return f"{_WORDS[ran.end]} ({said})" if ran.end is End.FAILED and said else _WORDS[ran.end]


def same_output(printed: str, expected: str) -> bool:
    """Compare line by line without the white space around; numbers of a line by value.

    As the official harness of LiveCodeBench does (lcb_runner, testing_util.py).
    """
    ours, theirs = (_lines(text) for text in (printed, expected))
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    numbers = [_numbers(line) for line in (ours, theirs)]
    return numbers[0] is not None and numbers[0] == numbers[1]


def _numbers(line: str) -> list[Decimal] | None:
    try:
        return [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None


def same_result(returned: str, expected: str) -> bool:
    """Compare what a call returned with JSON; a tuple counts as a list.

    As the official harness of LiveCodeBench does, which lets only the outermost tuple pass.
    """
    try:
        value = ast.literal_eval(returned)
        if isinstance(value, tuple):
            value = list(value)
        return bool(value == json.loads(expected))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


@functools.cache
def _sandbox() -> Sandbox:
    """Return this process's sandbox; it ends with the process."""
    return Sandbox()


@functools.cache
def _examiner() -> Sandbox:
    """Return this process's second sandbox, in which nothing of a model runs."""
    return Sandbox(preload=("numpy",))  # the extended tests of EvalPlus compare by it
