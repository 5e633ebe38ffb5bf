"""Jobs whose run is gone are found and cancelled, and no others."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.stack import Stack, eventually

pytestmark = pytest.mark.e2e

SLOW_RUN = {"tasks": ["Starter"], "num_shards": 2, "cluster": "slow", "force": True}
ALIVE = {"PENDING", "RUNNING", "CONFIGURING"}

JOB = """#!/bin/sh
#SBATCH --array=0-1
#SBATCH --output=/dev/null
#SBATCH --time=10
exec sleep 600
"""


@pytest.fixture
def airflow(stack: Stack) -> Iterator[httpx.Client]:
    """A client of Airflow's REST API."""
    login = {"username": stack.airflow.username, "password": stack.airflow.password}
    token = httpx.post(f"{stack.airflow.url}/auth/token", json=login).json()["access_token"]
    with httpx.Client(
        base_url=f"{stack.airflow.url}/api/v2/dags",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as client:
        yield client


def healthy_run(stack: Stack) -> tuple[str, dict[str, Any]]:
    """Start a run that takes about a minute; returns its id and shards once they are followed."""
    run_id = stack.trigger({**SLOW_RUN, "seed": 71})

    def followed() -> bool:
        tasks = stack.api().task_instances(run_id)
        states = [one["state"] for one in tasks if one["task_id"] == "shard"]
        return states == ["deferred", "deferred"]

    eventually(followed, "both shards under way")
    shards: dict[str, Any] = stack.api().result(run_id, "submit_shards")[0]
    return run_id, shards


def submit_by_hand(stack: Stack, runs: Path, run_key: str, deployment: str) -> str:
    """Submit a job as a run would that Airflow does not know; returns its job name."""
    folder = runs / run_key
    folder.mkdir()
    identity = {"deployment": deployment, "dag_id": "evaluate", "dag_run_id": "manual__deleted"}
    (folder / "run.json").write_text(json.dumps(identity))
    script = folder / "job-a1.sbatch"
    script.write_text(JOB)
    name = f"ns-{run_key}-a1"
    stack.command("sbatch", "--parsable", f"--job-name={name}", str(script))
    return name


def states(stack: Stack, name: str) -> list[str]:
    found = [line.split()[2] for line in stack.squeue() if line.split()[1] == name]
    assert len(found) == 2, name
    return found


def reconcile(airflow: httpx.Client, **conf: int) -> dict[str, dict[str, Any]]:
    """Run the DAG and return its task instances by cluster."""
    answer = airflow.post("/reconcile/dagRuns", json={"logical_date": None, "conf": conf})
    run = f"/reconcile/dagRuns/{answer.raise_for_status().json()['dag_run_id']}"
    eventually(
        lambda: airflow.get(run).json()["state"] in {"success", "failed"}, "the end of reconcile"
    )
    tasks = airflow.get(f"{run}/taskInstances").json()["task_instances"]
    return {
        one["rendered_map_index"]: {**one, "path": f"{run}/taskInstances/{one['task_id']}"}
        for one in tasks
        if one["task_id"] == "reconcile_cluster"
    }


def report(airflow: httpx.Client, task: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {"map_index": task["map_index"], "deserialize": True}
    value: dict[str, Any] = airflow.get(
        f"{task['path']}/xcomEntries/return_value", params=params
    ).json()["value"]
    return value


def log(airflow: httpx.Client, task: dict[str, Any]) -> str:
    return airflow.get(
        f"{task['path']}/logs/{task['try_number']}", params={"map_index": task["map_index"]}
    ).text


def test_jobs_whose_run_is_gone_are_cancelled_and_no_others(
    stack: Stack, airflow: httpx.Client
) -> None:
    run_id, shard = healthy_run(stack)
    layout = shard["shard"]["layout"]
    runs = Path(layout["workdir"]) / "runs"
    ours = json.loads((runs / layout["run_key"] / "run.json").read_text())
    assert (ours["dag_id"], ours["dag_run_id"]) == ("evaluate", run_id)
    mark = uuid.uuid4().hex[:6]
    orphan = submit_by_hand(stack, runs, f"orphan-{mark}", ours["deployment"])
    foreign = submit_by_hand(stack, runs, f"foreign-{mark}", "another-installation")
    healthy = f"ns-{layout['run_key']}-a1"

    young = reconcile(airflow, grace_s=3600)["echo"]
    assert any("while it is new" in one for one in report(airflow, young)["sentences"])
    assert set(states(stack, orphan)) <= ALIVE

    tasks = reconcile(airflow, grace_s=0)
    found = report(airflow, tasks["echo"])
    sentence = next(one for one in found["sentences"] if orphan in one)
    assert sentence.startswith("Cancelled ")
    assert sentence.endswith(f"({orphan}): its run was deleted.")
    assert sentence in log(airflow, tasks["echo"])
    eventually(lambda: set(states(stack, orphan)) == {"CANCELLED"}, "the cancelled orphans", 30)
    assert len(found["cancelled"]) == 2

    assert set(states(stack, foreign)) <= ALIVE
    assert set(states(stack, healthy)) <= {*ALIVE, "COMPLETED", "COMPLETING"}
    stack.command("scancel", f"--name={foreign}")

    assert tasks["unreachable"]["state"] == "skipped"
    assert "Not looked at this time" in log(airflow, tasks["unreachable"])
    assert tasks["wrong-key"]["state"] == "failed"
    assert stack.wait(run_id).state == "success"
