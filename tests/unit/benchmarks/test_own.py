"""A group's own benchmark is a file in a folder."""

import json
from pathlib import Path

import pytest

from nightshard.benchmarks import registry
from nightshard.benchmarks.judges.pool import Judgement, JudgePool
from nightshard.core.errors import UserError

pytestmark = pytest.mark.unit

CODE = """
from nightshard.benchmarks.base import METRICS, BenchmarkInfo, Problem, Verdict, chat
from nightshard.core.requests import Sampling


class Palindromes:
    info = BenchmarkInfo(
        name="Palindromes",
        title="Palindromes: say it backwards",
        version="1",
        judge_version="palindromes-1",
        problems=1,
        repeats=1,
        sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=64),
        expected_tokens=20,
        metrics=METRICS,
        source="this file",
    )

    def load(self, source=None):
        return [Problem("0", "Say abc backwards.", "cba")]

    def messages(self, problem, system_prompt=None):
        return chat(problem.question, system_prompt)

    def judge(self, problem, text):
        return Verdict(problem.gold in text, None, "by containment")


BENCHMARKS = [Palindromes()]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTSHARD_BENCHMARKS", str(tmp_path))
    return tmp_path


def write(folder: Path, name: str, *rows: dict[str, object]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_questions_and_answers_need_no_code(folder: Path) -> None:
    write(folder, "Sums", {"question": "2+3?", "answer": 5}, {"question": "1/2?", "answer": "0.5"})

    benchmark = registry.get("Sums")

    assert registry.names()[-1] == "Sums"
    first, second = benchmark.load()
    assert (first.question, first.gold) == ("2+3?", "5")
    assert benchmark.judge(second, r"\boxed{\frac12}").correct
    assert benchmark.info.problems == 2


def test_rows_with_options_are_multiple_choice(folder: Path) -> None:
    write(folder, "Quiz", {"question": "Which?", "options": ["no", "yes"], "answer": "b"})

    benchmark = registry.get("Quiz")

    (problem,) = benchmark.load()
    assert problem.question.splitlines()[-2:] == ["A) no", "B) yes"]
    assert benchmark.judge(problem, "The answer is (B).").correct


def test_another_content_is_another_version(folder: Path) -> None:
    write(folder, "Sums", {"question": "2+3?", "answer": 5})
    before = registry.info("Sums").version
    write(folder, "Sums", {"question": "2+4?", "answer": 6})
    assert registry.info("Sums").version != before


def test_a_python_file_may_say_everything_and_is_judged_in_its_own_process(folder: Path) -> None:
    (folder / "palindromes.py").write_text(CODE)

    (problem,) = registry.get("Palindromes").load()
    texts = ["It is cba.", "abc"]
    outcomes = JudgePool().judge(Judgement("Palindromes", problem, text) for text in texts)

    assert [getattr(one, "correct", one) for one in outcomes] == [True, False]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.py", "1/0", "bad.py cannot be used: ZeroDivisionError"),
        ("bad.py", "x = 1", "defines no BENCHMARKS; end it with"),
        ("bad.jsonl", "", "holds no problems"),
        ("bad.jsonl", "{", "bad.jsonl cannot be used: JSONDecodeError"),
        ("b d.jsonl", '{"question": "q", "answer": 1}', "names a benchmark 'b d'"),
    ],
)
def test_a_file_that_cannot_be_used_hides_no_other(
    folder: Path, name: str, content: str, words: str
) -> None:
    write(folder, "Sums", {"question": "2+3?", "answer": 5})
    (folder / name).write_text(content)

    assert "Sums" in registry.names()
    with pytest.raises(UserError, match=words):
        registry.get(Path(name).stem)


def test_an_answer_that_is_no_option_is_named(folder: Path) -> None:
    write(folder, "Quiz", {"question": "Which?", "options": ["no", "yes"], "answer": "C"})
    with pytest.raises(UserError, match="at line 1: answer is 'C', which is none of A, B"):
        registry.get("Quiz").load()
