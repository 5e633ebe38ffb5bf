"""A dry run submits nothing; a sweep measures; later runs choose by what was measured."""

import json
from pathlib import Path

import pytest
from support.stack import Stack

pytestmark = pytest.mark.e2e

ASKED = ("--tasks", "Starter", "--cluster", "echo", "--publish", "no", "--seed", "77")


def launch(stack: Stack, *options: str) -> str:
    done = stack.cli("launch", "--model-name", str(stack.model), *ASKED, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_dry_run_says_what_would_run_and_submits_nothing(stack: Stack) -> None:
    before = set(stack.squeue())
    said = launch(stack, "--dry-run", "--limit", "7", "--num-shards", "3")
    assert "Dry run of " in said
    assert "7 requests, 0 answered already, 7 to generate in 3 shards of 2 to 3" in said
    assert "output tokens after" in said
    assert "at most 3.0 GPU hours by the time limit" in said
    assert "#SBATCH --array=0-2" in said
    assert "#SBATCH --gres=gpu:1" in said
    assert set(stack.squeue()) <= before
    run = stack.wait(stack.api().newest_run())
    assert run.state == "success"
    states = {task["task_id"]: task["state"] for task in run.tasks}
    assert states.pop("plan") == "success"
    assert set(states.values()) == {"skipped"}


def test_a_dry_run_finds_what_is_wrong(stack: Stack) -> None:
    done = stack.cli("launch", "--model-name", "/nowhere", *ASKED, "--dry-run")
    assert done.returncode == 1
    assert "The model folder /nowhere does not exist" in done.stdout


def test_a_sweep_compares_and_later_runs_choose_by_it(stack: Stack) -> None:
    swept = stack.cli(
        *("sweep", "--model-name", str(stack.model), *ASKED, "--limit", "12"),
        *("--shards", "1,2,4"),
    )
    assert swept.returncode == 0, swept.stdout + swept.stderr
    rows = [line for line in swept.stdout.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == ["1", "2", "4"]
    for point in ("Diminishing returns", "Efficiency", "Initialisation", "Utilisation"):
        assert point in swept.stdout
    assert "Recommended shards: " in swept.stdout
    folder = Path(swept.stdout.split("Plots: ")[1].splitlines()[0])
    assert {file.name for file in folder.iterdir()} == {
        *("report.md", "time.svg", "timeline.svg", "points.json"),
    }
    points = json.loads((folder / "points.json").read_text())
    assert [one["tokens"] for one in points] == [points[0]["tokens"]] * 3

    said = launch(stack, "--dry-run", "--limit", "12", "--num-shards", "auto", "--force")
    assert "by 3 earlier runs" in said or "earlier runs; at most" in said
    said = launch(stack, "--limit", "12", "--optimise", "efficiency", "--force", "--watchdog")
    assert " shards=" in said


def test_auto_takes_the_cluster_that_starts_first_among_those_with_a_connection(
    stack: Stack,
) -> None:
    done = stack.cli(
        *("launch", "--model-name", str(stack.model), "--tasks", "Starter", "--limit", "2"),
        *("--cluster", "auto", "--dry-run"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Dry run of " in done.stdout
    plan = next(
        one for one in stack.wait(stack.api().newest_run()).tasks if one["task_id"] == "plan"
    )
    log = stack.wait(stack.api().newest_run()).log(plan)
    assert "a shard would start at" in log
    assert "Left out: unreachable: " in log
    assert "no-connection" not in log
