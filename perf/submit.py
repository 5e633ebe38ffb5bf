"""From ``submit_shards`` to the first worker, and from the last worker to the sensors' success.

Eight shards of the echo engine, which only waits, run through the DAG ``evaluate`` on a real
Airflow and a local Slurm with accounting; then as many jobs that wait as long run on the same
cluster through submitit: one array by ``map_array`` and ``result()`` with its default watcher.
Both ends are stamped by what runs in the job: its first and its last line.

submitit runs ``sbatch`` on this machine and looks at a shared folder each second; Nightshard does
both over SSH, from an Airflow that starts a process for each task.

    make perf NAME=submit [ARGS=--quick]
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import submitit
from overhead import SHARDS, prepare, run_dag, running
from rich.console import Console
from rich.table import Table

from nightshard.cli.api import AirflowApi
from nightshard.core.settings import Settings
from nightshard.local.info import ClusterInfo


@dataclass(frozen=True)
class Measured:
    """One array, in seconds.

    Attributes:
        first: from the start of the submission to the first job's first line.
        last: the same to the last job's first line.
        notice: from the last job's last line to whoever waited for all of them.
    """

    first: float
    last: float
    notice: float


def main() -> None:
    """Measure pairs and print the table, then the line with the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair, without a warm-up")
    arguments = parser.parse_args()
    pairs, seconds = (1, 2.0) if arguments.quick else (5, 10.0)
    with tempfile.TemporaryDirectory(prefix="nightshard-perf-") as name:
        state = Path(name)
        settings = prepare(state, seconds)
        with running(settings, accounting=True) as (cluster, api):
            if not arguments.quick:
                through_airflow(api, settings, seed=0)
            os.environ |= cluster.environment()
            ours, theirs = [], []
            for pair in range(pairs):
                ours.append(through_airflow(api, settings, seed=pair + 1))
                theirs.append(through_submitit(cluster, seconds, pair))
    report(ours, theirs)


def through_airflow(api: AirflowApi, settings: Settings, seed: int) -> Measured:
    """Run the DAG to the end of its sensors."""
    _, run_id, manifests = run_dag(api, settings, seed)
    starts = [_instant(manifest["started_at"]) for manifest in manifests]
    ends = [_instant(manifest["finished_at"]) for manifest in manifests]
    tasks = api.task_instances(run_id)
    submitted = min(_dates(tasks, "submit_shards", "start_date"))
    noticed = max(_dates(tasks, "shard", "end_date"))
    return Measured(min(starts) - submitted, max(starts) - submitted, noticed - max(ends))


def _dates(tasks: list[dict[str, Any]], step: str, which: str) -> list[float]:
    return [_instant(task[which]) for task in tasks if task["task_id"] == step]


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def through_submitit(cluster: ClusterInfo, seconds: float, number: int) -> Measured:
    """Run an array of jobs that wait, and wait for all of them."""
    executor = submitit.SlurmExecutor(cluster.shared / f"submitit-{number}")
    executor.update_parameters(array_parallelism=SHARDS, mem="100MB", partition="main", time=5)
    submitted = time.time()
    jobs = executor.map_array(_wait, [seconds] * SHARDS)
    stamps = [job.result() for job in jobs]
    noticed = time.time()
    starts, ends = zip(*stamps, strict=True)
    return Measured(min(starts) - submitted, max(starts) - submitted, noticed - max(ends))


def _wait(seconds: float) -> tuple[float, float]:
    started = time.time()
    time.sleep(seconds)
    return started, time.time()


def report(ours: list[Measured], theirs: list[Measured]) -> None:
    """Print the medians with their spread."""
    table = Table(
        title=f"{SHARDS} jobs, {len(ours)} pairs: seconds, median (least to most)", expand=False
    )
    for column in ("what", "Nightshard", "submitit"):
        table.add_column(column, justify="left" if column == "what" else "right")
    rows = {
        "submission's start to the first job's first line": "first",
        "the same, to the last job's first line": "last",
        "last job's last line to whoever waits": "notice",
    }
    for name, field in rows.items():
        table.add_row(
            name, *(_spread([getattr(one, field) for one in some]) for some in (ours, theirs))
        )
    Console(width=100).print(table)
    first, last, notice = (
        statistics.median(
            getattr(our, field) / getattr(their, field)
            for our, their in zip(ours, theirs, strict=True)
        )
        for field in ("first", "last", "notice")
    )
    print(
        f"perf submit: first_running_s={statistics.median(one.first for one in ours):.1f} "
        f"notice_s={statistics.median(one.notice for one in ours):.1f} "
        f"first_over_submitit={first:.2f} last_over_submitit={last:.2f} "
        f"notice_over_submitit={notice:.2f} shards={SHARDS} pairs={len(ours)}"
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
