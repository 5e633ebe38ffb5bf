"""Multiple choice: options shuffled for each question, and never an article for an answer."""

import collections
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.benchmarks import registry
from nightshard.benchmarks.choice import LETTERS, shuffled
from nightshard.benchmarks.judges.choice import judge
from nightshard.core.errors import UserError

pytestmark = pytest.mark.unit


def write(folder: Path, rows: list[dict[str, object]]) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def gpqa(number: int) -> dict[str, object]:
    return {
        "Record ID": f"rec{number}",
        "Question": f"What is {number} times 3?",
        "Correct Answer": f"right {number}",
        "Incorrect Answer 1": "wrong 1",
        "Incorrect Answer 2": "wrong 2",
        "Incorrect Answer 3": "wrong 3",
        "High-level domain": "Physics",
    }


def test_the_gold_follows_the_right_option_and_is_every_letter_about_as_often(tmp_path) -> None:
    """Evalchemy's first mistake: the shuffle was seeded alike, so the gold was always D."""
    problems = registry.get("GPQADiamond").load(write(tmp_path, [gpqa(n) for n in range(198)]))

    for number, problem in enumerate(problems):
        assert f"{problem.gold}) right {number}" in problem.question.splitlines()
        assert problem.subset == "Physics"
    counts = collections.Counter(problem.gold for problem in problems)
    assert set(counts) == set("ABCD")
    assert min(counts.values()) > 25


@given(st.text(min_size=1), st.integers(2, 10))
def test_a_question_is_shuffled_the_same_way_each_time(key: str, count: int) -> None:
    options = [f"option {at}" for at in range(count)]
    shown, right = shuffled(options, key)
    assert sorted(shown) == sorted(options)
    assert shown[right] == "option 0"
    assert shuffled(options, key) == (shown, right)


def test_mmlu_pro_keeps_its_own_order_and_up_to_ten_options(tmp_path) -> None:
    row = {
        "question_id": 70,
        "question": "Which one?",
        "options": [f"o{at}" for at in range(10)],
        "answer": "I",
        "answer_index": 8,
        "category": "law",
    }
    (problem,) = registry.get("MMLUPro").load(write(tmp_path, [row]))
    assert (problem.problem_id, problem.gold, problem.subset) == ("70", "I", "law")
    assert "J) o9" in problem.question


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Correct Answer": None}, "cannot be used at line 1: Correct Answer is empty"),
        ({"Question": " "}, "Question is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    tmp_path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        registry.get("GPQADiamond").load(write(tmp_path, [gpqa(1) | change]))


def test_a_file_of_another_benchmark_or_with_a_doubled_question_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="There is no column 'Question' at line 1"):
        registry.get("GPQADiamond").load(write(tmp_path, [{"problem": "x", "answer": "y"}]))
    with pytest.raises(UserError, match="has the problem 'rec1' twice"):
        registry.get("GPQADiamond").load(write(tmp_path, [gpqa(1), gpqa(1)]))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"so it is \boxed{C}", "C"),
        (r"\boxed{B} no wait, \boxed{\text{C}}", "C"),
        (r"\boxed{\text{(C) } 10 m/s}", "C"),
        (r"\boxed{c}", "C"),
        (r"$\boxed{\mathbf{C}}$.", "C"),
        (r"\boxed{Option C}", "C"),
        (r"\boxed{Carbon}", None),
        (r"\boxed{12}", None),
        ("The answer is C.", "C"),
        ("The correct answer is (c).", "C"),
        ("**Answer: C**", "C"),
        ("Final answer: **C**", "C"),
        ("The right option is $C$", "C"),
        ("The answer is B. Wait, the answer is C", "C"),
        ("Answer:\n\nC", "C"),
        ("the answer is a matter of taste", None),
        ("The answer is A matter of taste", None),
        ("The answer is A because of symmetry", "A"),
        ("The answer is A.", "A"),
        ("A good question deserves a good answer.", None),
        ("I think a cell has a wall", None),
        ("C", "C"),
        ("(C)", "C"),
        ("Some reasoning first.\n\nC.", "C"),
        ("Die Antwort lautet 42", None),
        ("<think>The answer is B</think>The answer is C", "C"),
        ("<think>The answer is C", None),
        ("The answer is I'm not sure", None),
        ("", None),
    ],
)
def test_the_letter_is_the_one_that_a_reader_would_take(text: str, letter: str | None) -> None:
    verdict = judge("C", text)
    if letter is None:
        assert not verdict.correct
        assert verdict.extracted not in set(LETTERS)
    else:
        assert (verdict.extracted, verdict.correct) == (letter, letter == "C")


@given(st.text(max_size=400), st.sampled_from(LETTERS))
def test_no_text_breaks_the_judge(text: str, gold: str) -> None:
    verdict = judge(gold, text)
    assert not verdict.correct or verdict.extracted == gold
