"""Programs are judged by their tests, as LiveCodeBench's own harness would."""

import base64
import json
import os
import pickle
import re
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
from nightshard.benchmarks.judges.sandbox.programs import End, Limits
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
    monkeypatch.setattr(code, "LIMITS", Limits(cpu_s=1))
    monkeypatch.setitem(code._WORDS, End.CPU, "it took more than 1 s of processor time")
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
    "body",
    [
        "return a + b",
        "seen: List[int] = deque([a, b])\n        return sum(seen)",
        "def down(n):\n            return down(n - 1) if n else a + b\n        return down(20000)",
        "import numpy as np\n        return np.array([a, b]).sum()",
    ],
)
def test_a_solution_finds_what_the_official_harness_gives(tmp_path: Path, body: str) -> None:
    """Starter code names List and imports nothing; deep recursion and numpy are allowed."""
    functional = {
        "starter_code": STARTER,
        "metadata": '{"func_name": "add"}',
        "public_test_cases": '[{"input": "1\\n2", "output": "3"}]',
        "private_test_cases": "[]",
    }
    (problem,) = load(tmp_path, row(**functional))
    program = f"class Solution:\n    def add(self, a: Optional[int], b: int):\n        {body}"
    assert registry.get("LiveCodeBench").judge(problem, block(program)).reason == "passes 1 tests"


def parts(folder: Path, part: str) -> list[str]:
    path = folder / "questions.jsonl"
    days = {"q1": "2024-07-31", "q2": "2024-08-01", "q3": "2025-01-31", "q4": "2025-02-01"}
    rows = [
        row(question_id=name, contest_date=f"{day}T00:00:00", difficulty=level)
        for (name, day), level in zip(days.items(), ("easy", "hard", "easy", "hard"), strict=True)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    benchmark = registry.get(f"LiveCodeBenchV6@{part}")
    assert benchmark.info.name == f"LiveCodeBenchV6@{part}"
    return [problem.problem_id for problem in benchmark.load(str(path))]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("hard", ["q2", "q4"]),
        ("2024-08..2025-01", ["q2", "q3"]),
        ("2024-08-01..2025-01-30", ["q2"]),
        ("2025-01..", ["q3", "q4"]),
        ("..2024-08", ["q1", "q2"]),
        ("easy+2024-08..", ["q3"]),
    ],
)
def test_a_part_of_a_release_is_asked(tmp_path: Path, part: str, expected: list[str]) -> None:
    assert parts(tmp_path, part) == expected


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("", "'' is no part of it; write easy, medium, hard, dates such as 2024-08..2025-01"),
        ("..", "'..' is no part of it"),
        ("hard+easy", "'easy' is no part of it"),
        ("2024-8..", "'2024-8..' is no part of it"),
        ("2025-02..2025-01-31", "its dates end before they begin; swap them"),
        ("2030-01..", "has no problem of LiveCodeBenchV6@2030-01..; choose a wider part"),
    ],
)
def test_a_part_that_cannot_be_is_said_in_a_sentence(
    tmp_path: Path, part: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        parts(tmp_path, part)


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


def answers_of(problem: Problem, row: dict[str, Any]) -> tuple[str, str]:
    """Return the reference solution of a row, and a function of its name that does nothing."""
    solution = row["code"] if "code" in row else row["prompt"] + row["canonical_solution"]
    name = json.loads(problem.gold)["name"]
    return solution.replace("\r", ""), f"def {name}(*given): return None"


@pytest.mark.parametrize(
    ("name", "variable", "unfit"),
    [
        ("HumanEval", "NIGHTSHARD_HUMANEVAL", set()),
        ("MBPP", "NIGHTSHARD_MBPP", {367}),  # its tests use an object that its solution makes
    ],
)
def test_the_canonical_solutions_pass_and_emptied_ones_fail(
    name: str, variable: str, unfit: set[int]
) -> None:
    """With the benchmark's own file, unpacked, in a variable; docs/benchmarks.md says which."""
    file = os.environ.get(variable)
    if file is None:
        pytest.skip(f"{variable} does not name the questions of {name}")
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    benchmark = registry.get(name)
    for problem, row in zip(benchmark.load(file), rows, strict=True):
        right, wrong = (
            benchmark.judge(problem, block(program)) for program in answers_of(problem, row)
        )
        expected = (row["task_id"] not in unfit, False)
        assert (right.correct, wrong.correct) == expected, (row["task_id"], right, wrong)


MBPP_ROW = {
    "task_id": 7,
    "text": "Write a function that counts letters.",
    "code": "",
    "test_list": [
        "assert set(tally('aab')) == set(limits)",
        "assert tally('aab') == {'a': 2, 'b': 1}",
    ],
    "test_setup_code": "limits = 'ab'",
}
PLUS = "import numpy as np\nassert np.allclose(sorted(tally('aab').values()), [1, 2])"


@pytest.mark.parametrize(
    ("name", "row"),
    [("MBPP", MBPP_ROW), ("MBPPPlus", {**MBPP_ROW, "prompt": "Write one.", "test": PLUS})],
)
def test_a_function_with_any_name_is_examined_by_its_tests(
    tmp_path: Path, name: str, row: dict[str, Any]
) -> None:
    path = tmp_path / "functions.jsonl"
    path.write_text(json.dumps(row) + "\n")
    benchmark = registry.get(name)
    (problem,) = benchmark.load(str(path))
    (asked,) = benchmark.messages(problem)
    assert "limits = 'ab'\nassert set(tally('aab')) == set(limits)" in asked["content"]
    right = "from collections import Counter\ndef tally(text): return Counter(text)"
    assert benchmark.judge(problem, block(right)).reason == "passes its tests"
    assert not benchmark.judge(problem, block("def tally(text): return {'a': 2}")).correct
    assert not benchmark.judge(problem, block("def count(text): return {}")).correct


def test_tests_that_call_nothing_in_common_are_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "functions.jsonl"
    path.write_text(json.dumps({**MBPP_ROW, "test_list": ["assert f(1)", "assert g(1)"]}) + "\n")
    with pytest.raises(UserError, match="at line 1: its tests call no function in common"):
        registry.get("MBPP").load(str(path))


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
        ("[(1, 2)]", "[[1, 2]]", False),
        ("'a'", '"a"', True),
        ("True", "true", True),
        ("None", "null", True),
        ("{1: 2}", '{"1": 2}', False),
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
