"""A person triggers `evaluate` and finds everything where it belongs."""

import json
import re

import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, text
from support.stack import FinishedRun, Stack

pytestmark = pytest.mark.e2e

SHARDS = 3
LIMIT = 9


@pytest.fixture(scope="module")
def run(stack: Stack) -> FinishedRun:
    """One run of the tiny model on real vLLM, in three shards."""
    finished = stack.run(
        {"tasks": ["Starter"], "limit": LIMIT, "num_shards": SHARDS, "max_tokens": 24}
    )
    assert finished.state == "success", [
        finished.log(task) for task in finished.tasks if task["state"] == "failed"
    ]
    return finished


def test_the_grid_names_each_shard(run: FinishedRun) -> None:
    names = [task["rendered_map_index"] for task in run.tasks if task["task_id"] == "shard"]
    assert sorted(names) == ["shard 1 of 3", "shard 2 of 3", "shard 3 of 3"]


def test_a_shards_log_tells_its_progress(run: FinishedRun) -> None:
    log = next(run.log(task) for task in run.tasks if task["task_id"] == "shard")
    assert re.search(r"done on \S+: (\d+) of \1 answers", log)


def test_every_request_is_answered_once(run: FinishedRun, stack: Stack) -> None:
    folder = stack.settings.state / "store" / "runs" / run.summary()["run_key"]
    asked = pq.read_table(folder / "requests.parquet").column("request_id").to_pylist()
    answered = pq.read_table(folder / "answers.parquet").column("request_id").to_pylist()
    assert len(asked) == LIMIT
    assert answered == asked


def test_each_shard_left_a_manifest_with_its_slurm_job(run: FinishedRun, stack: Stack) -> None:
    folder = stack.settings.state / "store" / "runs" / run.summary()["run_key"] / "outputs"
    manifests = [json.loads(file.read_text()) for file in sorted(folder.glob("*.manifest.json"))]
    assert [manifest["rank"] for manifest in manifests] == [0, 1, 2]
    assert sum(manifest["rows"] for manifest in manifests) == LIMIT
    assert all(manifest["slurm"]["job_id"] for manifest in manifests)
    assert all(manifest["versions"]["vllm"] for manifest in manifests)


def test_the_score_stands_in_the_database(run: FinishedRun, stack: Stack) -> None:
    with create_engine(stack.settings.database_url).connect() as connection:
        rows = connection.execute(
            text(
                "SELECT runs.run_key, metrics.value, metrics.n, metrics.coverage FROM metrics "
                "JOIN runs ON runs.id = metrics.run_id "
                "WHERE runs.run_key = :key AND benchmark = 'Starter' AND metric = 'accuracy' "
                "AND subset = ''"
            ),
            {"key": run.summary()["run_key"]},
        ).all()
    score = run.summary()["scores"][0]
    assert [tuple(row) for row in rows] == [
        (run.summary()["run_key"], score["accuracy"], score["n"], 1.0)
    ]


def test_a_score_can_be_traced_to_its_slurm_jobs_and_nodes(run: FinishedRun, stack: Stack) -> None:
    key = run.summary()["run_key"]
    shown = stack.cli("results", "--run", key, "--trace")
    assert shown.returncode == 0, shown.stderr
    folder = stack.settings.state / "store" / "runs" / key / "outputs"
    for file in folder.glob("*.manifest.json"):
        manifest = json.loads(file.read_text())
        assert manifest["slurm"]["job_id"] in shown.stdout
        assert manifest["node"] in shown.stdout


def test_the_same_evaluation_again_generates_nothing(run: FinishedRun, stack: Stack) -> None:
    jobs = {line.split()[0] for line in stack.squeue()}
    again = stack.run(
        {"tasks": ["Starter"], "limit": LIMIT, "num_shards": SHARDS, "max_tokens": 24}
    )
    assert again.state == "success"
    assert again.summary()["submitted"] == 0
    assert again.summary()["scores"][0]["accuracy"] == run.summary()["scores"][0]["accuracy"]
    assert {line.split()[0] for line in stack.squeue()} <= jobs


def test_more_problems_generate_only_the_new_ones(run: FinishedRun, stack: Stack) -> None:
    more = stack.run(
        {"tasks": ["Starter"], "limit": LIMIT + 2, "num_shards": SHARDS, "max_tokens": 24}
    )
    assert more.state == "success"
    assert (more.summary()["reused"], more.summary()["requests"]) == (LIMIT, LIMIT + 2)
    assert more.summary()["shards"] == 2  # no shard is cut that would have no question


def test_a_model_that_is_served_elsewhere_needs_no_folder_on_the_cluster(stack: Stack) -> None:
    run = stack.run(
        {"model": "org/served", "tasks": ["Starter"], "cluster": "served", "num_shards": 2}
    )
    assert run.state == "success", [
        run.log(task) for task in run.tasks if task["state"] == "failed"
    ]
    key = run.summary()["run_key"]
    answers = stack.settings.state / "store" / "runs" / key / "answers.parquet"
    assert set(pq.read_table(answers).column("text").to_pylist()) == {"It is \\boxed{9}."}
    shown = json.loads(stack.cli("results", "--run", key, "--json").stdout)
    assert {one["revision"] for one in shown} == {"served as org/served"}
