"""Two runs are compared problem by problem, and only where that is fair."""

import json

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner
from upath import UPath

from nightshard.cli.compare import compare
from nightshard.core.errors import UserError
from nightshard.results.arrow import VERDICT_SCHEMA
from nightshard.results.compare import compare_runs
from nightshard.results.store import RunStore, write_json, write_table

pytestmark = pytest.mark.unit


class Runs:
    """An artefact store with scored runs."""

    def __init__(self, root: UPath) -> None:
        self.root = root

    def add(
        self, key: str, right: dict[str, list[bool]], judge: str = "math-1", repeats: int = 1
    ) -> None:
        rows = [
            {
                "request_id": f"{name}-{problem}-{repeat}",
                "benchmark": name,
                "problem_id": str(problem),
                "repeat_idx": repeat,
                "correct": correct,
                "extracted": None,
                "reason": "",
            }
            for name, outcomes in right.items()
            for problem, correct in enumerate(outcomes)
            for repeat in range(repeats)
        ]
        store = RunStore(self.root, key)
        write_table(store.verdicts, pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA))
        metrics = [
            {"benchmark": name, "benchmark_version": "1", "judge_version": judge} for name in right
        ]
        write_json(store.scorecard, {"metrics": metrics, "failures": {}})


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(UPath(tmp_path / "store"))


def test_a_clear_gain_is_better_and_a_small_one_cannot_be_told(runs: Runs) -> None:
    runs.add("old", {"MATH500": [False] * 20 + [True] * 20, "AIME24": [True] * 5 + [False] * 5})
    runs.add("new", {"MATH500": [True] * 40, "AIME24": [True] * 6 + [False] * 4})

    gained, same = compare_runs(runs.root, "old", "new")

    assert (gained.verdict, same.verdict) == ("better", "cannot tell")
    assert gained.difference is not None
    assert (gained.difference.better, gained.difference.worse) == (20, 0)
    assert gained.adjusted == pytest.approx(2 * 2 * 0.5**20)
    assert compare_runs(runs.root, "new", "old")[0].verdict == "worse"


def test_a_problem_that_one_run_lacks_does_not_count_as_wrong(runs: Runs) -> None:
    runs.add("old", {"MATH500": [True] * 10})
    runs.add("new", {"MATH500": [True] * 6})

    (one,) = compare_runs(runs.root, "old", "new")

    assert one.difference is not None
    assert (one.difference.value, one.difference.problems) == (0.0, 6)
    assert one.note == "4 problems are in one run only and do not count"


def test_another_judge_or_a_benchmark_of_one_run_is_said_and_not_compared(runs: Runs) -> None:
    runs.add("old", {"MATH500": [True] * 4, "AMC23": [True] * 4})
    runs.add("new", {"MATH500": [True] * 4, "Starter": [True] * 4}, judge="math-2")

    notes = {one.benchmark: one.note for one in compare_runs(runs.root, "old", "new")}

    assert "1 and math-1 in one run, 1 and math-2 in the other" in notes["MATH500"]
    assert notes["AMC23"] == "only in old"
    assert notes["Starter"] == "only in new"


def test_runs_without_a_common_benchmark_or_without_verdicts_are_a_sentence(runs: Runs) -> None:
    runs.add("old", {"MATH500": [True]})
    runs.add("new", {"AMC23": [True]})
    with pytest.raises(UserError, match="have no benchmark in common: MATH500 and AMC23"):
        compare_runs(runs.root, "old", "new")
    with pytest.raises(UserError, match=r"verdicts\.parquet is not there"):
        compare_runs(runs.root, "old", "absent")


def test_a_person_sees_a_table_or_json(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHARD_STORE", str(runs.root))
    monkeypatch.setenv("COLUMNS", "160")
    runs.add("old", {"MATH500": [False] * 20 + [True] * 20})
    runs.add("new", {"MATH500": [True] * 40})
    group = click.Group(commands=[compare])

    shown = CliRunner().invoke(group, ["compare", "old", "new"]).output
    told = json.loads(CliRunner().invoke(group, ["compare", "old", "new", "--json"]).output)

    assert "+0.500" in shown
    assert "better" in shown
    assert (told[0]["verdict"], told[0]["test"]) == ("better", "mcnemar")
