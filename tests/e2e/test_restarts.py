"""Every process of Airflow is killed in the middle of a run that a person follows."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.parts import kill_everything
from support.slurm_watch import watched_slurm
from support.stack import Stack, eventually

from nightshard.cli.api import SilentAirflowError

pytestmark = pytest.mark.e2e

QUESTIONS = ("--tasks", "Starter", "--limit", "6", "--num_shards", "2", "--max-tokens", "20")
PATIENCE_S = 600


class Followed:
    """A run of the tiny model on real vLLM, launched and followed as the quickstart does it."""

    def __init__(self, stack: Stack, *options: str) -> None:
        self.stack = stack
        launch = ("launch", "--model_name", str(stack.model), "--watchdog", *QUESTIONS, *options)
        self._process = subprocess.Popen(
            [Path(sys.executable).parent / "nightshard", *launch],
            env={**os.environ, **stack.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._output = self._process.stdout
        assert self._output is not None
        self.run_id = next(line.split()[1] for line in self._output if line.startswith("Started "))

    def await_end(self) -> str:
        """Return its last line, which has the score."""
        printed, _ = self._process.communicate(timeout=PATIENCE_S)
        assert self._process.returncode == 0, printed
        return printed.strip().splitlines()[-1]

    @property
    def summary(self) -> dict[str, Any]:
        value: dict[str, Any] = self.stack.api().result(self.run_id, "record")
        return value

    def answers(self) -> list[tuple[str, str, int]]:
        """Return request ids, texts and numbers of tokens, as they were merged."""
        folder = self.stack.settings.state / "store" / "runs" / self.summary["run_key"]
        rows = pq.read_table(
            folder / "answers.parquet", columns=["request_id", "text", "output_tokens"]
        )
        return [(row["request_id"], row["text"], row["output_tokens"]) for row in rows.to_pylist()]


def test_killing_all_of_airflow_in_the_middle_ends_in_the_same_score(stack: Stack) -> None:
    undisturbed = Followed(stack)
    undisturbed.await_end()
    with watched_slurm(stack) as watch:
        killed = Followed(stack, "--force")
        eventually(lambda: shards_are_deferred(stack, killed.run_id), "the shards")
        kill_everything(stack)
        stack.local_airflow().up(print)
        last_line = killed.await_end()
    score = undisturbed.summary["scores"][0]
    assert f"Starter accuracy={score['accuracy']:.3f} n={score['n']}" in last_line
    assert killed.summary["scores"] == undisturbed.summary["scores"]
    assert killed.answers() == undisturbed.answers()
    assert all(tokens > 0 for *_, tokens in killed.answers())
    key = killed.summary["run_key"]
    assert {name: len(ids) for name, ids in watch.arrays(key).items()} == {f"ns-{key}-a1": 1}
    assert watch.states(key) <= {"PENDING", "RUNNING", "COMPLETING", "COMPLETED"}


def shards_are_deferred(stack: Stack, run_id: str) -> bool:
    with suppress(SilentAirflowError):
        tasks = stack.api().task_instances(run_id)
        states = [task["state"] for task in tasks if task["task_id"] == "shard"]
        return len(states) > 1 and set(states) == {"deferred"}
    return False
