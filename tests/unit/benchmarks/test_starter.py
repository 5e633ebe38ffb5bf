"""The bundled questions are right, and their judge takes the right answers only."""

import calendar
import functools
import itertools
import json
from collections import Counter
from datetime import date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from nightshard.benchmarks.judges import math as judge
from nightshard.benchmarks.starter import QUESTIONS, Starter

pytestmark = pytest.mark.unit

CHECKS: dict[str, str] = json.loads(
    Path(__file__).with_name("starter_checks.json").read_text(encoding="utf-8")
)
ROWS = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
NAMES = {
    "calendar": calendar,
    "date": date,
    "datetime": datetime,
    "timedelta": timedelta,
    "functools": functools,
    "itertools": itertools,
    "Fraction": Fraction,
    "DAYS": list(calendar.day_name),
}


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_a_gold_answer_equals_an_independent_computation(row: dict[str, object]) -> None:
    # One namespace: a comprehension does not see eval's locals.
    assert str(eval(CHECKS[str(row["id"])], dict(NAMES))) == row["answer"]


def test_every_question_has_a_check_and_no_check_is_left_over() -> None:
    assert set(CHECKS) == {row["id"] for row in ROWS}


def test_there_are_sixty_questions_in_four_topics_and_four_levels() -> None:
    problems = Starter().load()
    assert len(problems) == Starter().info.problems == 60
    assert Counter(problem.subset for problem in problems) == dict.fromkeys(
        ("arithmetic", "dates", "units", "logic"), 15
    )
    assert {row["level"] for row in ROWS} == {1, 2, 3, 4}
    assert len({problem.question for problem in problems}) == 60


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_the_gold_is_accepted_boxed_and_the_next_question_s_is_not(row: dict[str, str]) -> None:
    others = [other for other in ROWS if other["answer"] != row["answer"]]
    other = others[int(row["id"][-2:]) % len(others)]
    assert judge.judge(row["answer"], f"So it is \\boxed{{{row['answer'].upper()}}}.").correct
    assert not judge.judge(row["answer"], f"So it is \\boxed{{{other['answer']}}}.").correct
