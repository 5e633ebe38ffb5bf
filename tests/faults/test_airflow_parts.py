"""Airflow's processes are killed at each step of a run; the run ends as if nothing had been."""

import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.parts import VICTIMS, await_new, await_parts, parts_of, signal_part
from support.slurm_watch import SlurmWatch, watched_slurm
from support.stack import FinishedRun, Stack, eventually

from nightshard.cli.api import AirflowApi, SilentAirflowError

pytestmark = pytest.mark.faults

LIMIT = 12
SHARDS = 2

KILLED_AT: dict[str, dict[str, tuple[str, ...]]] = {
    "first": {
        "plan": ("scheduler",),
        "prepare_dataset": ("worker",),
        "stage": ("API server",),
        "the intent": ("scheduler",),
        "shard": ("triggerer", "scheduler"),
        "collect": ("everything",),
        "merge": ("scheduler",),
        "score": ("API server", "triggerer"),
        "record": ("task",),
    },
    "second": {
        "plan": ("API server", "DAG processor"),
        "prepare_dataset": ("scheduler",),
        "stage": ("everything",),
        "submit_shards": ("task",),
        "shard": ("trigger runner", "everything"),
        "collect": ("scheduler",),
        "merge": ("API server",),
        "score": ("scheduler", "API server"),
        "record": ("everything",),
    },
}
"""At which step's beginning what is killed; the intent is the file before `sbatch`."""

NOT_YET = {None, "none", "scheduled", "queued", "up_for_retry"}


@pytest.fixture(scope="module")
def conf(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is asked: questions of which every fourth has the answer that the engine gives."""
    file = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    golds = [9 if number % 4 == 0 else 10 for number in range(LIMIT)]
    rows = [
        {"unique_id": f"q{n}", "problem": f"How much is {gold} + 0 x {n}?", "answer": str(gold)}
        for n, gold in enumerate(golds)
    ]
    file.write_text(
        "".join(json.dumps({**row, "subject": "sums", "level": 1}) + "\n" for row in rows)
    )
    await_parts(stack)
    return {"tasks": ["MATH500"], "source": {"MATH500": str(file)}, "num_shards": SHARDS}


@pytest.fixture(scope="module")
def undisturbed(stack: Stack, conf: dict[str, Any]) -> float:
    """The score when nothing is killed."""
    finished = stack.run({**conf, "cluster": "echo"})
    assert finished.state == "success"
    return accuracy(finished)


@pytest.mark.parametrize("round_", KILLED_AT.keys())
def test_a_run_whose_processes_are_killed_ends_in_the_same_score(
    stack: Stack, conf: dict[str, Any], undisturbed: float, round_: str
) -> None:
    # Other requests than before, or their answers would be reused.
    other = {"cluster": "slow", "max_tokens": 60 + len(round_)}
    with watched_slurm(stack) as watch:
        run_id, api = stack.trigger({**conf, **other}), stack.api()
        for moment, victims in KILLED_AT[round_].items():
            await_moment(stack, api, run_id, moment)
            for victim in victims:
                VICTIMS[victim](stack)
        await_parts(stack)
        finished = stack.wait(run_id)
    assert finished.state == "success", failures(finished)
    assert accuracy(finished) == undisturbed == 3 / LIMIT
    assert_nothing_lost_or_doubled(stack, watch, finished)


def test_a_killed_supervisor_is_replaced_without_a_restart_of_the_parts(stack: Stack) -> None:
    await_parts(stack)
    before = parts_of(stack)
    os.kill(before.pid, signal.SIGKILL)
    after = stack.local_airflow().up(print)
    assert after.pid != before.pid
    assert after.parts == before.parts
    signal_part(stack, "triggerer")
    await_new(stack, "triggerer", before.parts["triggerer"])
    await_parts(stack)


def assert_nothing_lost_or_doubled(stack: Stack, watch: SlurmWatch, finished: FinishedRun) -> None:
    run_key = finished.summary()["run_key"]
    arrays = watch.arrays(run_key)
    assert {name: len(ids) for name, ids in arrays.items()} == {f"ns-{run_key}-a1": 1}
    assert not {state for state in watch.states(run_key) if state.startswith("CANCELLED")}
    folder = stack.settings.state / "store" / "runs" / run_key
    asked = pq.read_table(folder / "requests.parquet").column("request_id").to_pylist()
    shards = [pq.read_table(file) for file in sorted((folder / "outputs").glob("*.parquet"))]
    answered = Counter(one for table in shards for one in table.column("request_id").to_pylist())
    assert len(asked) == LIMIT
    assert answered == dict.fromkeys(asked, 1)


def await_moment(stack: Stack, api: AirflowApi, run_id: str, moment: str) -> None:
    """Wait until a step has begun, through times in which Airflow is silent."""

    def begun() -> bool:
        with suppress(SilentAirflowError):
            if moment == "the intent":
                return intent_is_written(stack, api, run_id)
            states = [t["state"] for t in api.task_instances(run_id) if t["task_id"] == moment]
            return any(state not in NOT_YET for state in states)
        return False

    eventually(begun, f"the beginning of {moment}")


def intent_is_written(stack: Stack, api: AirflowApi, run_id: str) -> bool:
    plan: Mapping[str, Any] | None = api.result(run_id, "plan")
    if plan is None:
        return False
    run = stack.cluster.shared / "nightshard" / "runs" / plan["run_key"]
    return any(run.glob("submission-*.json"))


def accuracy(finished: FinishedRun) -> float:
    return float(finished.summary()["scores"][0]["accuracy"])


def failures(finished: FinishedRun) -> list[str]:
    return [finished.log(task)[-3000:] for task in finished.tasks if task["state"] == "failed"]
