"""Programs are judged by their tests, as LiveCodeBench's own harness would."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.judges import code
from nightshard.benchmarks.judges.code import CodeTest, judge, last_code, same_output, same_result
from nightshard.benchmarks.judges.pool import JudgeError, Judgement, JudgePool
from nightshard.benchmarks.judges.sandbox import bubblewrap
from nightshard.core.errors import UserError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SUM = [CodeTest("1 2\n", "3\n"), CodeTest("5 7\n", "12\n")]
STARTER = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        "


def block(program: str) -> str:
    return f"Here it is:\n```python\n{program}\n```\nDone."


def pack(tests: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def row(**changes: Any) -> dict[str, Any]:
    return {
        "question_id": "q1",
        "question_content": "Add two numbers.",
        "difficulty": "easy",
        "starter_code": "",
        "metadata": "{}",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
        "private_test_cases": pack([{"input": "5 7\n", "output": "12\n", "testtype": "stdin"}]),
        **changes,
    }


def load(folder: Path, *rows: dict[str, Any]) -> list[Problem]:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return registry.get("LiveCodeBench").load(str(path))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print(sum(map(int, input().split())))", "passes 2 tests"),
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", "passes 2 tests"),
        ("a, b = map(int, open(0).read().split())\nprint(a + b)\nexit()", "passes 2 tests"),
        ("import sys\nprint(sum(map(int, input().split())))\nsys.exit(0)", "passes 2 tests"),
        ("if __name__ == '__main__':\n    print(sum(map(int, input().split())))", "passes 2 tests"),
        ("print(3)", "test 2 of 2: another output"),
        ("import os\nos._exit(0)", "test 1 of 2: another output"),
        ("print(sum(map(int, input().split())))\n1/0", "test 1 of 2: the program failed (ZeroDiv"),
        ("while True: pass", "test 1 of 2: it took more than 1 s of processor time"),
        ("x = [0] * (1 << 40)", "test 1 of 2: it needs too much memory"),
    ],
)
def test_a_program_is_right_if_it_passes_every_test(
    program: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "LIMITS", bubblewrap.Limits(cpu_s=1))
    monkeypatch.setitem(code._WORDS, bubblewrap.End.CPU, "it took more than 1 s of processor time")
    verdict = judge(SUM, None, block(program))
    assert verdict.reason.startswith(reason)
    assert verdict.correct == reason.startswith("passes")


def test_starter_code_is_shown_and_its_method_called(tmp_path: Path) -> None:
    """Evalchemy's seventh mistake: starter code never shown, and `class Solution` breaks."""
    functional = {
        "starter_code": STARTER,
        "metadata": '{"func_name": "add"}',
        "public_test_cases": json.dumps(
            [{"input": "1\n2", "output": "3", "testtype": "functional"}]
        ),
        "private_test_cases": pack([{"input": "[1, 2]\n[3]", "output": "[1, 2, 3]"}]),
    }
    (problem,) = load(tmp_path, row(**functional))
    benchmark = registry.get("LiveCodeBench")

    assert "def add(self, a: int, b: int)" in benchmark.messages(problem)[0]["content"]
    right = (
        "class Solution:\n    def add(self, a, b):\n        print('debug')\n        return a + b"
    )
    assert benchmark.judge(problem, block(right)).correct
    left = "print(3)\n        import os; os._exit(0)"
    forged = f"class Solution:\n    def add(self, a, b):\n        {left}"
    assert not benchmark.judge(problem, block(forged)).correct


def test_public_and_private_tests_count_and_the_difficulty_is_the_subset(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, row())
    benchmark = registry.get("LiveCodeBench")
    assert problem.subset == "easy"
    verdict = benchmark.judge(problem, block("print(3)"))
    assert verdict.reason == "test 2 of 2: another output"


EXAM = """
def check(candidate):
    assert candidate([1, 2], 3) == (3, [1, 2])
    assert candidate([], 0) == (0, [])
    assert add([5], 1)[0] == helper(1)
"""
PROMPT = 'def helper(x):\n    return x\n\n\ndef add(xs, n):\n    """Count."""\n'
FUNCTION = {"task_id": "T/1", "prompt": PROMPT, "test": EXAM, "entry_point": "add"}


def examine(folder: Path, program: str) -> tuple[bool, str]:
    path = folder / "functions.jsonl"
    path.write_text(json.dumps(FUNCTION) + "\n")
    benchmark = registry.get("HumanEval")
    (problem,) = benchmark.load(str(path))
    verdict = benchmark.judge(problem, block(program))
    return verdict.correct, verdict.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return helper(n), xs", "passes its tests"),
        ("print('noise')\n    return n, list(xs)", "passes its tests"),
        ("return n, xs + [1]", "a test fails (AssertionError)"),
        ("return 1/0, xs", "a test fails (AssertionError: failed: ZeroDivisionError"),
        ("import os; os._exit(0)", "a test fails ("),
        ("import sys; sys.exit(0)", "a test fails ("),
        (
            "class Same:\n        def __eq__(self, other): return True\n    return Same()",
            "a test fails (",
        ),
    ],
)
def test_a_function_is_examined_from_another_sandbox(
    tmp_path: Path, body: str, reason: str
) -> None:
    correct, said = examine(tmp_path, f"def add(xs, n):\n    {body}")
    assert said.startswith(reason)
    assert correct == (reason == "passes its tests")


def test_a_function_finds_nothing_of_its_exam(tmp_path: Path) -> None:
    spy = (
        "import sys\n    frame = sys._getframe()\n    while frame:\n"
        "        seen = repr({**frame.f_globals, **frame.f_locals})\n"
        "        assert 'def ' 'check' not in seen and 'helper' '(1)' not in seen\n"
        "        frame = frame.f_back\n    return n, xs"
    )
    assert examine(tmp_path, f"def add(xs, n):\n    {spy}") == (True, "passes its tests")


def test_the_canonical_solutions_pass_and_emptied_ones_fail() -> None:
    """With the file of github.com/openai/human-eval, unpacked, in NIGHTSHARD_HUMANEVAL."""
    name = os.environ.get("NIGHTSHARD_HUMANEVAL")
    if name is None:
        pytest.skip("NIGHTSHARD_HUMANEVAL does not name HumanEval.jsonl")
    rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
    benchmark = registry.get("HumanEval")
    for problem, row in zip(benchmark.load(name), rows, strict=True):
        right = benchmark.judge(problem, block(row["prompt"] + row["canonical_solution"]))
        wrong = benchmark.judge(problem, block(row["prompt"] + "    return None"))
        assert (right.correct, wrong.correct) == (True, False), (row["task_id"], right, wrong)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("harm"), "done"))


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = base64.b64encode(zlib.compress(pickle.dumps(Harm()))).decode()
    with pytest.raises(UserError, match=r"tests at line 1 .* cannot be decoded .*not allowed"):
        load(tmp_path, row(private_test_cases=packed))
    assert not (tmp_path / "harm").exists()


def test_without_a_sandbox_code_is_refused_and_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "programs", list)
    with pytest.raises(UserError, match="in a sandbox only, and bwrap is missing; install"):
        bubblewrap.check_sandbox()


def test_a_sandbox_that_cannot_be_made_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "programs", lambda: [fake])
    with pytest.raises(UserError, match="No permissions to create new namespace"):
        bubblewrap.check_sandbox()


def test_an_old_bubblewrap_gives_way_to_the_bundled_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho 'bwrap: Unknown option --disable-userns' >&2\nexit 1\n")
    old.chmod(0o755)
    others = bubblewrap.programs()
    monkeypatch.setattr(bubblewrap, "programs", lambda: [old, *others])
    bubblewrap.check_sandbox()


def test_the_pool_judges_code_on_all_cores(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, row())
    programs = ["print(sum(map(int, input().split())))", "print(3)"] * 60
    outcomes = JudgePool(2).judge(
        Judgement("LiveCodeBench", problem, block(program)) for program in programs
    )
    assert not [one for one in outcomes if isinstance(one, JudgeError)]
    assert [getattr(one, "correct", None) for one in outcomes] == [True, False] * 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (block("x = 1"), "x = 1\n"),
        ("```python\na\n```\ntext\n```python\nb\n```", "b\n"),
        ("```\nplain\n```", "plain\n"),
        ("```python\na\n```\nand a shell line:\n```\n\n```", "a\n"),
        ("```python\nnever closed\n```python\nb\n```", "b\n"),
        ("<think>```python\nx\n```</think>nothing", None),
        ("no code", None),
    ],
)
def test_the_last_block_of_code_is_taken(text: str, expected: str | None) -> None:
    assert last_code(text) == expected


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("3", "3\n", True),
        ("3 \n4\n\n", "3\n4", True),
        ("3.0", "3", True),
        ("1e2 5", "100 5", True),
        ("3\n4", "3 4", False),
        ("Yes", "YES", False),
        ("", "0", False),
    ],
)
def test_output_is_compared_line_by_line(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


@pytest.mark.parametrize(
    ("returned", "expected", "same"),
    [
        ("(1, 2)", "[1, 2]", True),
        ("[(1, 2)]", "[[1, 2]]", True),
        ("'a'", '"a"', True),
        ("True", "true", True),
        ("None", "null", True),
        ("{1: 2}", '{"1": 2}', True),
        ("1", "2", False),
        ("<object at 0x1>", "1", False),
        ("", "1", False),
    ],
)
def test_results_are_compared_as_values(returned: str, expected: str, same: bool) -> None:
    assert same_result(returned, expected) is same


@given(st.text(max_size=300))
def test_no_text_breaks_the_search_for_code(text: str) -> None:
    found = last_code(text)
    assert found is None or found in text
