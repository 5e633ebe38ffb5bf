"""What people are told of a run."""

from dataclasses import replace

import pytest
from support.recorded import recorded_run

from nightshard.publish.message import about_run, about_shard

pytestmark = pytest.mark.unit

LINKS = {"Run": "https://airflow.example/dags/evaluate/runs/1"}


def test_a_scored_run_is_told_with_scores_cost_and_links() -> None:
    run = recorded_run("run-1", model="org/a", day=1, value=0.75)
    told = about_run(run, name="run-1", failures={}, links=LINKS)
    assert (told.event, told.title) == ("scored", "org/a (run-1) scored")
    assert told.text.splitlines() == [
        "MATH500: 0.750, n = 500",
        "Cost: 0.03 GPU hours, 500 answers",
        f"Run: {LINKS['Run']}",
    ]


def test_a_run_that_fell_behind_says_so_and_why() -> None:
    gate = {"verdict": "worse", "baseline": "run-0", "reasons": ["MATH500: worse, 0.9 to 0.75"]}
    run = replace(recorded_run("run-1", model="org/a", day=1, value=0.75), gate=gate)
    told = about_run(run, name="run-1", failures={"gate": "failed"}, links={})
    assert (told.event, told.title) == ("worse", "org/a (run-1) is worse than its baseline")
    assert "Gate: worse than run-0\n  MATH500: worse, 0.9 to 0.75" in told.text
    assert "gate: failed" not in told.text


def test_a_run_that_failed_before_its_scores_says_where() -> None:
    told = about_run(None, name="run-1", failures={"stage": "no room"}, links=LINKS)
    assert (told.event, told.title) == ("failed", "run-1 failed")
    assert told.text.splitlines() == ["stage: no room", f"Run: {LINKS['Run']}"]


def test_a_publication_that_failed_is_told_beside_the_scores() -> None:
    run = recorded_run("run-1", model="org/a", day=1, value=0.75)
    told = about_run(run, name="run-1", failures={"publish": "refused"}, links={})
    assert told.event == "failed"
    assert "publish: refused" in told.text
    assert "MATH500: 0.750" in told.text


def test_a_shard_that_needs_somebody_is_told_with_its_cause() -> None:
    told = about_shard(name="run-1", number=3, said="out of memory", links=LINKS)
    assert (told.event, told.title) == ("attention", "Shard 3 of run-1 needs attention")
    assert told.text.startswith("out of memory\n")
