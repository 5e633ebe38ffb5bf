"""A person stops one shard, and runs one shard again, from Airflow."""

import json
from typing import Any

import httpx
import pytest
from support.stack import Stack, eventually

from nightshard.core.story import read_progress

pytestmark = pytest.mark.e2e

SLOW_RUN = {"tasks": ["Starter"], "limit": 24, "num_shards": 2, "cluster": "slow"}
HALF = 3


@pytest.fixture
def airflow(stack: Stack) -> httpx.Client:
    """A client of the REST calls behind the buttons of Airflow's page."""
    login = {"username": stack.airflow.username, "password": stack.airflow.password}
    token = httpx.post(f"{stack.airflow.url}/auth/token", json=login).json()["access_token"]
    return httpx.Client(
        base_url=f"{stack.airflow.url}/api/v2/dags/evaluate",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )


def elements(stack: Stack, run_id: str) -> dict[int, str]:
    """Rank to state, of the array of a run's first attempt."""
    job = eventually(lambda: stack.api().result(run_id, "submit_shards"), "the submission")[0]
    rows = [line.split() for line in stack.squeue()]
    prefix = f"{job['job']['job_id']}_"
    return {
        int(job_id.removeprefix(prefix)): state
        for job_id, _, state in rows
        if job_id.startswith(prefix)
    }


def working(stack: Stack, run_id: str) -> bool:
    """Whether both shards are deferred and have half of their answers.

    By then the scheduler has heard of the process that deferred them, about 5 s after its end. A
    task that comes back to fail at that very moment looks lost to it, and it retries the task.
    """
    tasks = [one for one in stack.api().task_instances(run_id) if one["task_id"] == "shard"]
    progress = [
        any(_done(event) >= HALF for event in stack.api().log_events(run_id, one))
        for one in tasks
        if one["state"] == "deferred"
    ]
    return progress == [True, True]


def _done(event: dict[str, Any]) -> int:
    progress = read_progress(str(event.get("event", "")))
    return progress.done if progress else 0


def test_marking_a_shard_failed_cancels_its_job_and_no_other(
    stack: Stack, airflow: httpx.Client
) -> None:
    run_id = stack.trigger({**SLOW_RUN, "seed": 1})
    eventually(lambda: working(stack, run_id), "both shards at work")
    airflow.patch(
        f"/dagRuns/{run_id}/taskInstances/shard/0", json={"new_state": "failed"}
    ).raise_for_status()
    eventually(lambda: elements(stack, run_id).get(0) == "CANCELLED", "the cancelled job", 20)
    finished = stack.wait(run_id)
    states = {one["map_index"]: one["state"] for one in finished.tasks if one["task_id"] == "shard"}
    assert states == {0: "failed", 1: "success"}
    assert elements(stack, run_id).get(1, "COMPLETED") == "COMPLETED"


def test_clearing_a_lost_shard_runs_it_again_and_keeps_what_was_finished(
    stack: Stack, airflow: httpx.Client
) -> None:
    # Sharing their work, the other shard might finish this one's.
    run_id = stack.trigger({**SLOW_RUN, "seed": 2, "balance": "static"})
    eventually(lambda: working(stack, run_id), "both shards at work")
    job = stack.api().result(run_id, "submit_shards")[0]
    stack.command("scancel", job["job_id"])
    lost = stack.wait(run_id)
    assert lost.state == "failed"
    log = lost.log(next(one for one in lost.tasks if one["state"] == "failed"))
    assert "cancelled" in log
    assert "Clear this task to run the shard again" in log
    clear: dict[str, Any] = {
        "dry_run": False,
        "dag_run_id": run_id,
        "task_ids": [["shard", 0]],
        "include_downstream": True,
        "only_failed": False,
        "reset_dag_runs": True,
    }
    airflow.post("/clearTaskInstances", json=clear).raise_for_status()
    eventually(lambda: stack.api().run_state(run_id) in {"queued", "running"}, "the run again")
    again = stack.wait(run_id)
    assert again.state == "success"
    run_key = again.summary()["run_key"]
    outputs = stack.settings.state / "store" / "runs" / run_key / "outputs"
    manifests = [json.loads(file.read_text()) for file in sorted(outputs.glob("*.manifest.json"))]
    assert [one["attempt"] for one in manifests] == [2, 1]
    kept = [one["attempt"] for one in _answers(stack, run_key) if one["rank"] == 0]
    assert sorted(set(kept)) == [1, 2]
    shown = stack.cli("results", "--run", run_key, "--trace")
    assert manifests[0]["slurm"]["job_id"] in shown.stdout


def test_a_shard_that_is_preempted_goes_on_by_itself_and_spends_no_try(stack: Stack) -> None:
    run_id = stack.trigger({**SLOW_RUN, "seed": 3})
    eventually(lambda: working(stack, run_id), "both shards at work")
    run_key = stack.api().result(run_id, "plan")["run_key"]
    listed = stack.command("squeue", "--array", "--noheader", "--format=%i %N").splitlines()
    nodes = dict(line.split() for line in listed if " node" in line)
    victim = stack.api().result(run_id, "submit_shards")[0]["job_id"]
    urgent = ("--partition=hi", "--exclusive", f"--nodelist={nodes[victim]}", "--time=5")
    stack.command("sbatch", *urgent, "--output=/dev/null", "--wrap=sleep 1")
    finished = stack.wait(run_id)
    assert finished.state == "success"
    tasks = [one for one in finished.tasks if one["task_id"] == "shard"]
    assert [one["try_number"] for one in tasks] == [1, 1]
    log = finished.log(next(one for one in tasks if one["map_index"] == 0))
    assert "preempted by Slurm" in log
    assert "Submitted attempt 2" in log
    assert finished.summary()["submitted"] >= 3  # the other shard may have been on that node
    assert finished.summary()["scores"][0]["n"] == 24
    shown = stack.cli("results", "--run", run_key, "--trace").stdout
    assert "preempted" in shown


def _answers(stack: Stack, run_key: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    file = stack.settings.state / "store" / "runs" / run_key / "answers.parquet"
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows
