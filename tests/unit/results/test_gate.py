"""A run passes its gate unless it is worse for sure, and by more than is allowed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.recorded import recorded_run
from upath import UPath

from nightshard.cli import cli
from nightshard.core.comparison import compare
from nightshard.core.errors import UserError
from nightshard.results.arrow import VERDICT_SCHEMA
from nightshard.results.compare import Comparison
from nightshard.results.database import open_database
from nightshard.results.gate import Policy, rule
from nightshard.results.store import RunStore, write_json, write_table
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

PROBLEMS = 40


def compared(before: int, after: int, name: str = "MATH500") -> Comparison:
    """Compare runs with so many of 40 problems right, the same ones first."""
    first, second = (
        {str(number): [number < right] for number in range(PROBLEMS)} for right in (before, after)
    )
    found = compare(first, second)
    return Comparison(name, found, found.p_value)


@pytest.mark.parametrize(
    ("before", "after", "margin", "verdict"),
    [
        (20, 32, 0.0, "better"),
        (32, 20, 0.0, "worse"),
        (32, 20, 0.4, "cannot tell"),  # it may fall by as much
        (21, 20, 0.0, "cannot tell"),
        (20, 20, 0.0, "cannot tell"),
    ],
)
def test_only_what_is_sure_and_beyond_the_margin_counts(
    before: int, after: int, margin: float, verdict: str
) -> None:
    ruling = rule([compared(before, after)], Policy(margin=margin))
    assert ruling.verdict == verdict
    (reason,) = ruling.reasons
    assert f"{before / PROBLEMS:.3f} to {after / PROBLEMS:.3f}" in reason


def test_one_benchmark_that_is_worse_outweighs_those_that_are_better() -> None:
    both = [compared(20, 32), compared(32, 20, "AIME24")]
    assert rule(both, Policy()).verdict == "worse"
    only = rule(both, Policy(benchmarks=("MATH500", "AMC23")))
    assert only.verdict == "better"
    assert only.reasons[-1] == "AMC23: in neither run"


def test_a_benchmark_that_cannot_be_compared_says_why() -> None:
    ruling = rule([Comparison("MATH500", None, note="only in old")], Policy())
    assert (ruling.verdict, ruling.reasons) == (
        "cannot tell",
        ("MATH500: cannot tell, only in old",),
    )


@given(st.integers(0, PROBLEMS), st.integers(0, PROBLEMS), st.floats(0, 0.99))
def test_a_wider_margin_never_fails_what_a_narrower_one_passes(
    before: int, after: int, margin: float
) -> None:
    found = [compared(before, after)]
    strict, lax = rule(found, Policy()), rule(found, Policy(margin=margin))
    assert lax.verdict == strict.verdict or (strict.verdict, lax.verdict) == (
        "worse",
        "cannot tell",
    )
    assert strict.verdict != "worse" or after < before


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """Four runs of a model on four days with 10, 36, 30 and 12 of 40 right, and one of another."""
    monkeypatch.setenv("NIGHTSHARD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("NIGHTSHARD_DB_URL", f"sqlite:///{tmp_path}/results.db")
    engine = open_database(f"sqlite:///{tmp_path}/results.db")
    for day, (model, right) in enumerate(
        [("org/a", 10), ("org/a", 36), ("org/a", 30), ("org/a", 12), ("org/a-long", 40)], start=1
    ):
        key = f"run-{day}"
        record_run(engine, recorded_run(key, model=model, day=day, value=right / PROBLEMS))
        rows = [
            {
                "request_id": str(number),
                "benchmark": "MATH500",
                "problem_id": str(number),
                "repeat_idx": 0,
                "correct": number < right,
            }
            for number in range(PROBLEMS)
        ]
        store = RunStore(UPath(tmp_path / "store"), key)
        write_table(store.verdicts, pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA))
        metric = {"benchmark": "MATH500", "benchmark_version": "1", "judge_version": "math-1"}
        write_json(store.scorecard, {"metrics": [metric], "failures": {}})
    return engine


def gate(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["gate", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("run-1",), "run-1: cannot tell", 0),
        (("run-2",), "run-2: better than run-1", 0),
        (("run-3",), "run-3: worse than run-2", 3),
        (("run-3", "--margin", "0.2"), "run-3: cannot tell", 0),
        (("run-4",), "run-4: worse than run-3", 3),
        (("run-4", "--baseline", "best"), "run-4: worse than run-2", 3),
        (("run-4", "--baseline", "run-1"), "run-4: cannot tell", 0),
    ],
)
def test_a_run_is_compared_with_the_previous_the_best_or_a_pinned_one(
    runs: sa.Engine, arguments: tuple[str, ...], said: str, code: int
) -> None:
    found = gate(*arguments)
    assert found.output.splitlines()[0] == said
    assert found.exit_code == code


def test_a_first_run_has_nothing_to_be_compared_with(runs: sa.Engine) -> None:
    assert "no earlier scored run of org/a to compare with" in gate("run-1").output
    # Another model's name that begins alike is not the same model.
    assert "no earlier scored run of org/a-long" in gate("run-5").output


def test_a_policy_is_one_short_file(runs: sa.Engine, tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("baseline: best\nbenchmarks: [MATH500]\nmargin: 0.01\n")
    told = json.loads(gate("run-3", "--policy", str(file), "--json").output)
    assert (told["verdict"], told["baseline"]) == ("worse", "run-2")
    assert told["comparisons"][0]["better"] == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("margin: -1", "margin cannot be used"),
        ("bench: [A]", "bench cannot be used"),
        ("- a", "cannot be used"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_policy_that_cannot_be_is_said_in_a_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        Policy.read(file)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        Policy.read(tmp_path / "none.yaml")
