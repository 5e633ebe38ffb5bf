"""JEEBench: four kinds of problems, each by the exam's own rule."""

import json
from pathlib import Path

import pytest

from nightshard.benchmarks import registry
from nightshard.core.errors import UserError

pytestmark = pytest.mark.unit


def load(folder: Path, kind: str, gold: str) -> list[object]:
    path = folder / "questions.jsonl"
    row = {"subject": "phy", "type": kind, "gold": gold, "question": "What?", "index": 1}
    path.write_text(json.dumps(row) + "\n")
    return list(registry.get("JEEBench").load(str(path)))


@pytest.mark.parametrize(
    ("kind", "gold", "text", "correct", "credit"),
    [
        ("MCQ", "B", "So \\boxed{B}", True, None),
        ("MCQ", "B", "So \\boxed{C}", False, None),
        ("MCQ(multiple)", "BD", "\\boxed{B, D}", True, None),
        ("MCQ(multiple)", "BD", "\\boxed{\\text{(b) and (d)}}", True, None),
        ("MCQ(multiple)", "ABD", "\\boxed{BD}", False, 0.5),
        ("MCQ(multiple)", "BD", "\\boxed{B}", False, 0.25),
        ("MCQ(multiple)", "BD", "\\boxed{BC}", False, 0.0),
        ("MCQ(multiple)", "BD", "\\boxed{ABCD}", False, 0.0),
        ("MCQ(multiple)", "BD", "I choose:\nB, D", True, None),
        ("MCQ(multiple)", "BD", "None of them convinces me.", False, None),
        ("Integer", "7", "\\boxed{7}", True, None),
        ("Integer", "7", "\\boxed{x = 7}", True, None),
        ("Numeric", "3.14", "\\boxed{\\frac{22}{7}}", True, None),
        ("Numeric", "12000", "\\boxed{1.2 \\times 10^4}", True, None),
        ("Numeric", "0.5", "\\boxed{0.511}", False, None),
        ("Numeric", "0.5", "\\boxed{0.51}", True, None),
        ("Numeric", "0.5", "\\boxed{\\infty}", False, None),
        ("Numeric", "0.5", "<think>\\boxed{0.5}", False, None),
    ],
)
def test_each_kind_has_its_rule(
    tmp_path: Path, kind: str, gold: str, text: str, correct: bool, *, credit: float | None
) -> None:
    (problem,) = load(tmp_path, kind, gold)
    verdict = registry.get("JEEBench").judge(problem, text)
    assert (verdict.correct, verdict.credit) == (correct, credit), verdict


def test_a_kind_that_nobody_knows_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at line 1: its type is 'Essay'; there are MCQ, "):
        load(tmp_path, "Essay", "x")
