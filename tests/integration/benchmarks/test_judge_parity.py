"""Our judges and others say the same, and where they do not, somebody has said why.

`make judges` compares all answers and writes docs/judges.md.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.parity import sets
from support.parity.sets import EXPLAINED, Parity

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def check(results: Sequence[Parity]) -> None:
    for one in results:
        unexplained = [
            (one.benchmark, one.reference, what, text)
            for what, text, _ in one.disagreements
            if not any(part in text for part in EXPLAINED)
        ]
        assert unexplained == []
        assert one.mistakes == ()
        assert one.answers > 20


def test_mathematics(shared_data: Path) -> None:
    check(sets.mathematics(shared_data, every=10))


def test_choice_and_word_problems() -> None:
    check(sets.others())


@pytest.mark.parametrize(
    ("variable", "measure"),
    [("NIGHTSHARD_LCB", sets.live_code_bench), ("NIGHTSHARD_JEE", sets.jee_bench)],
)
def test_the_official_harness(variable: str, measure: object) -> None:
    file = os.environ.get(variable)
    if file is None:
        pytest.skip(f"{variable} does not name the file of the official harness")
    check([measure(Path(file))])  # type: ignore[operator]


QUICK = [one for one in sets.PROGRAMS if "while True" not in one[1]]


@pytest.mark.parametrize(("task", "program", "right"), QUICK)
def test_programs_are_judged_as_they_were_made(task: sets.Task, program: str, right: bool) -> None:
    assert sets.passes(task.name, task.tests, program) is right
