"""What cancels a run's Slurm jobs, and what must not: people do, restarts do not."""

import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.parts import await_new, await_parts, parts_of, signal_part
from support.slurm_watch import SlurmWatch, watched_slurm
from support.stack import Stack, eventually

from nightshard.core.story import read_progress
from nightshard.local.airflow_parts import members

pytestmark = pytest.mark.faults

RUN = {"tasks": ["Starter"], "limit": 24, "num_shards": 2, "cluster": "slow"}
"""Eighteen seconds of answers a shard."""

WITHIN_S = 15
ENDED = {"COMPLETED", "CANCELLED"}


@pytest.fixture
def airflow(stack: Stack) -> httpx.Client:
    """A client of the REST calls behind the buttons of Airflow's page."""
    login = {"username": stack.airflow.username, "password": stack.airflow.password}
    token = httpx.post(f"{stack.airflow.url}/auth/token", json=login, timeout=30).json()
    return httpx.Client(
        base_url=f"{stack.airflow.url}/api/v2/dags/evaluate",
        headers={"Authorization": f"Bearer {token['access_token']}"},
        timeout=30,
    )


@pytest.fixture
def watch(stack: Stack) -> Iterator[SlurmWatch]:
    with watched_slurm(stack) as watch:
        yield watch


def trigger(stack: Stack, tokens: int, **conf: Any) -> str:
    """Trigger a run whose requests no other test has, or their answers would be reused."""
    return stack.trigger({**RUN, **conf, "max_tokens": tokens})


class Begun:
    """A run whose shards are all deferred and at work on their nodes."""

    def __init__(self, stack: Stack, tokens: int, **conf: Any) -> None:
        self.stack = stack
        self.run_id = trigger(stack, tokens, **conf)
        eventually(self._at_work, f"the first progress of {self.run_id}")
        self.run_key = stack.api().result(self.run_id, "plan")["run_key"]

    def _at_work(self) -> bool:
        api = self.stack.api()
        shards = [one for one in api.task_instances(self.run_id) if one["task_id"] == "shard"]
        if not shards or any(one["state"] != "deferred" for one in shards):
            return False
        return all(
            any(read_progress(str(event["event"])) for event in api.log_events(self.run_id, one))
            for one in shards
        )

    def jobs(self) -> dict[str, str]:
        """Job id to state, of all elements that Slurm still knows."""
        rows = [line.split() for line in self.stack.squeue()]
        return {job: state for job, name, state in rows if name.startswith(f"ns-{self.run_key}-")}

    def await_cancelled(self) -> None:
        def cancelled() -> bool:
            states = self.jobs().values()
            return bool(states) and all(one.startswith("CANCELLED") for one in states)

        eventually(cancelled, f"the end of the jobs of {self.run_id}", timeout_s=WITHIN_S)


def test_marking_a_run_failed_cancels_its_own_elements_and_no_others(
    stack: Stack, airflow: httpx.Client, watch: SlurmWatch
) -> None:
    other = trigger(stack, 202)
    stopped = Begun(stack, 201, cluster="endless")
    airflow.patch(f"/dagRuns/{stopped.run_id}", json={"state": "failed"}).raise_for_status()
    stopped.await_cancelled()
    finished = stack.wait(other)
    assert finished.state == "success"
    assert watch.states(finished.summary()["run_key"]) <= {
        "PENDING",
        "RUNNING",
        "COMPLETING",
        "COMPLETED",
    }


def test_a_run_that_is_stopped_and_deleted_at_once_leaves_no_job(
    stack: Stack, airflow: httpx.Client
) -> None:
    deleted = Begun(stack, 203, cluster="endless")
    refused = airflow.delete(f"/dagRuns/{deleted.run_id}")
    assert refused.status_code == httpx.codes.CONFLICT  # Airflow deletes no run that goes on
    airflow.patch(f"/dagRuns/{deleted.run_id}", json={"state": "failed"}).raise_for_status()

    def gone() -> bool:  # a run that was marked goes on until the task that tells of it has ended
        return airflow.delete(f"/dagRuns/{deleted.run_id}").status_code != httpx.codes.CONFLICT

    eventually(gone, "the run to be deleted", timeout_s=WITHIN_S)
    deleted.await_cancelled()


def test_a_task_instance_that_is_deleted_leaves_no_job(stack: Stack, airflow: httpx.Client) -> None:
    run = Begun(stack, 205, cluster="endless")
    airflow.delete(
        f"/dagRuns/{run.run_id}/taskInstances/shard", params={"map_index": 0}
    ).raise_for_status()
    first = eventually(lambda: [job for job in run.jobs() if job.endswith("_0")], "the job")[0]
    eventually(lambda: run.jobs()[first].startswith("CANCELLED"), "its end", timeout_s=WITHIN_S)
    airflow.patch(f"/dagRuns/{run.run_id}", json={"state": "failed"}).raise_for_status()
    run.await_cancelled()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_of_the_triggerer_cancels_nothing_and_reattaches(
    stack: Stack, watch: SlurmWatch, signum: signal.Signals
) -> None:
    run = Begun(stack, 204 + signum)
    before = parts_of(stack).parts["triggerer"]
    signal_part(stack, "triggerer", signum)
    await_new(stack, "triggerer", before)
    finished = stack.wait(run.run_id)
    assert finished.state == "success"
    assert {task["try_number"] for task in finished.tasks if task["task_id"] == "shard"} == {1}
    assert watch.states(run.run_key) <= {"PENDING", "RUNNING", "COMPLETING", "COMPLETED"}
    assert watch.arrays(run.run_key).keys() == {f"ns-{run.run_key}-a1"}


def test_a_restart_of_all_by_a_person_cancels_nothing(stack: Stack, watch: SlurmWatch) -> None:
    run = Begun(stack, 263)
    running = parts_of(stack)
    stack.local_airflow().down()
    assert not members([running.pid, *running.parts.values()])
    stack.local_airflow().up(print)
    finished = stack.wait(run.run_id)
    assert finished.state == "success"
    assert watch.states(run.run_key) <= {"PENDING", "RUNNING", "COMPLETING", "COMPLETED"}
    assert watch.arrays(run.run_key).keys() == {f"ns-{run.run_key}-a1"}


def test_a_shard_cleared_while_the_triggerer_is_down_keeps_its_job(
    stack: Stack, airflow: httpx.Client, watch: SlurmWatch
) -> None:
    run = Begun(stack, 270)
    signal_part(stack, "triggerer")
    clear = {
        "dry_run": False,
        "dag_run_id": run.run_id,
        "task_ids": [["shard", 0]],
        "only_failed": False,
        "reset_dag_runs": True,
    }
    airflow.post("/clearTaskInstances", json=clear).raise_for_status()
    await_parts(stack)
    finished = stack.wait(run.run_id)
    assert finished.state == "success"
    assert watch.states(run.run_key) <= {"PENDING", "RUNNING", "COMPLETING", "COMPLETED"}
    assert watch.arrays(run.run_key).keys() == {f"ns-{run.run_key}-a1"}
