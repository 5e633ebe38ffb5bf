"""What Nightshard adds to the time of its slowest shard.

Shards of the echo engine, which only waits, are run in the same call as a run of the DAG
``evaluate`` on a warm Airflow with quickstart's settings, and as a bare ``sbatch --wait`` of the
very array that Nightshard rendered. Goal: at most 10 s beyond the slowest shard.

    make perf NAME=overhead [ARGS=--quick]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from nightshard.cli.api import AirflowApi
from nightshard.core.settings import PROJECT_ROOT, Settings
from nightshard.core.task_states import RUN_ENDED
from nightshard.local.info import ClusterInfo
from nightshard.local.stack import LocalStack

SHARDS = 8
POLL_S = 0.2
STEPS = (
    "plan",
    "prepare_dataset",
    "stage",
    "submit_shards",
    "shard",
    "collect",
    "merge",
    "score",
    "record",
)


@dataclass(frozen=True)
class Measured:
    """One pair of runs, all in seconds.

    Attributes:
        dag: from the trigger until the scores are recorded.
        after: from then to the end of the DAG run.
        slowest: the slowest shard's own time, as its manifest says.
        bare: the same array by hand, from ``sbatch`` to its last manifest.
        waited: until ``sbatch --wait`` noticed; it looks at intervals that double.
        steps: per task, from the end of what came before it to its own end.
        start: from the end of ``submit_shards`` to the start of the last worker.
        notice: from the last manifest to the end of the last shard's task.
    """

    dag: float
    after: float
    slowest: float
    bare: float
    waited: float
    steps: dict[str, float]
    start: float
    notice: float


def main() -> None:
    """Measure and print the table, then the line that names the goal's figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair after the warm-up")
    arguments = parser.parse_args()
    pairs, seconds = (1, 4.0) if arguments.quick else (5, 10.0)
    with tempfile.TemporaryDirectory(prefix="nightshard-perf-") as name:
        state = Path(name)
        settings = prepare(state, seconds)
        with running(settings) as (cluster, api):
            measure(api, cluster, settings, seed=0)  # warm-up: first imports, worker staged
            results = [measure(api, cluster, settings, seed=pair + 1) for pair in range(pairs)]
    report(results)


@contextmanager
def running(
    settings: Settings, *, accounting: bool = False
) -> Iterator[tuple[ClusterInfo, AirflowApi]]:
    """Run a cluster and an Airflow that knows the DAG."""
    stack = LocalStack(settings, accounting=accounting)
    try:
        cluster, airflow = stack.up(print)
        api = AirflowApi(airflow.url, airflow.username, airflow.password)
        while not api.dag_exists():
            time.sleep(POLL_S)
        yield cluster, api
    finally:
        stack.down()


def prepare(state: Path, seconds: float) -> Settings:
    """Write a profile with the echo engine, a model folder, and one question a shard."""
    clusters = state / "clusters"
    clusters.mkdir()
    local = yaml.safe_load((PROJECT_ROOT / "include" / "clusters" / "local.yaml").read_text())
    local["engine"] = {
        **local["engine"],
        "name": "echo",
        "options": {"answer": "\\boxed{7}", "seconds_per_request": seconds},
    }
    local["worker"]["python"] = sys.executable
    (clusters / "local.yaml").write_text(yaml.safe_dump(local))
    questions = [
        {"id": str(number), "question": f"What is {number} + 0?", "answer": str(number)}
        for number in range(SHARDS)
    ]
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    (state / "questions.jsonl").write_text(lines)
    model = state / "model"
    model.mkdir()
    (model / "config.json").write_text('{"max_position_embeddings": 4096}')
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    return Settings.from_env({"NIGHTSHARD_STATE": str(state), "NIGHTSHARD_CLUSTERS": str(clusters)})


def run_dag(
    api: AirflowApi, settings: Settings, seed: int
) -> tuple[float, str, list[dict[str, Any]]]:
    """Run the DAG to its end; return when it was triggered, its id and the shards' manifests."""
    run_id = api.trigger(
        {
            "cluster": "local",
            "model": str(settings.state / "model"),
            "tasks": ["Starter"],
            "source": {"Starter": str(settings.state / "questions.jsonl")},
            "num_shards": SHARDS,
            "repeats": 1,
            "seed": seed,
        }
    )
    triggered = time.time()
    while (run_state := api.run_state(run_id)) not in RUN_ENDED:
        time.sleep(POLL_S)
    if run_state == "failed":
        sys.exit(f"The run {run_id} failed; see {settings.state}.")
    run = settings.state / "store" / "runs" / api.result(run_id, "record")["run_key"]
    files = run.glob("outputs/*.manifest.json")
    return triggered, run_id, [json.loads(file.read_text()) for file in files]


def measure(api: AirflowApi, cluster: ClusterInfo, settings: Settings, seed: int) -> Measured:
    """Run the DAG, then the same array by hand."""
    triggered, run_id, manifests = run_dag(api, settings, seed)
    run_key = api.result(run_id, "record")["run_key"]
    tasks = api.task_instances(run_id)
    bare, waited = bare_seconds(cluster, run_key)
    submitted, noticed = (_step_end(tasks, step) for step in ("submit_shards", "shard"))
    return Measured(
        dag=_step_end(tasks, "record") - triggered,
        after=max(map(_end, tasks)) - _step_end(tasks, "record"),
        slowest=max(manifest["timings"]["total_s"] for manifest in manifests),
        bare=bare,
        waited=waited,
        steps=step_seconds(tasks, triggered),
        start=max(_instant(manifest["started_at"]) for manifest in manifests) - submitted,
        notice=noticed - max(_instant(manifest["finished_at"]) for manifest in manifests),
    )


def bare_seconds(cluster: ClusterInfo, run_key: str) -> tuple[float, float]:
    """Time ``sbatch --wait`` of a copy of the run's folder without its answers.

    Returns:
        Seconds until the last manifest, and until ``sbatch`` returned.
    """
    runs = cluster.shared / "nightshard" / "runs"
    copy = runs / f"{run_key}-bare"
    shutil.copytree(runs / run_key, copy, ignore=shutil.ignore_patterns("outputs", "shards"))
    (copy / "outputs").mkdir()
    for rank in range(SHARDS):
        (copy / "shards" / f"{rank:05d}").mkdir(parents=True)
    script = next(copy.glob("*.sbatch"))
    script.write_text(script.read_text().replace(str(runs / run_key), str(copy)))
    spec = copy / "spec.json"
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "run_key": copy.name}))
    started = time.time()
    # It may end in an error, where it looks after Slurm has forgotten the job already.
    subprocess.run(
        ["sbatch", "--wait", "--parsable", f"--array=0-{SHARDS - 1}", script],
        env={**os.environ, **cluster.environment()},
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    waited = time.time() - started
    manifests = [json.loads(file.read_text()) for file in copy.glob("outputs/*.manifest.json")]
    if len(manifests) != SHARDS:
        sys.exit(f"The bare array left {len(manifests)} of {SHARDS} manifests in {copy}.")
    return max(_instant(manifest["finished_at"]) for manifest in manifests) - started, waited


def step_seconds(tasks: list[dict[str, Any]], triggered: float) -> dict[str, float]:
    """Cut the run's time into steps: each lasts until its last task instance has ended."""
    ends = {step: _step_end(tasks, step) for step in STEPS}
    before = [triggered, *(ends[step] for step in STEPS[:-1])]
    return {step: ends[step] - start for step, start in zip(STEPS, before, strict=True)}


def _step_end(tasks: list[dict[str, Any]], step: str) -> float:
    return max(_end(task) for task in tasks if task["task_id"] == step)


def _end(task: dict[str, Any]) -> float:
    return _instant(task["end_date"])


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def report(results: list[Measured]) -> None:
    """Print the medians with their spread."""
    table = Table(title=f"{SHARDS} shards, {len(results)} pairs: seconds, median (least to most)")
    table.add_column("what")
    table.add_column("seconds", justify="right")
    beyond = [result.dag - result.slowest for result in results]
    rows = {
        "DAG run, until the scores are recorded": [result.dag for result in results],
        "slowest shard": [result.slowest for result in results],
        "bare array, to its last manifest": [result.bare for result in results],
        "bare array, to the end of sbatch --wait": [result.waited for result in results],
        "beyond the slowest shard": beyond,
        "until the last worker starts": [result.start for result in results],
        "from the last manifest to Airflow": [result.notice for result in results],
        "after the scores: gate, publish, notify": [result.after for result in results],
        **{f"step {step}": [result.steps[step] for result in results] for step in STEPS},
    }
    for name, values in rows.items():
        spread = f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        table.add_row(name, spread)
    Console(width=90).print(table)
    ratio = statistics.median(result.dag / result.bare for result in results)
    after = statistics.median(result.after for result in results)
    print(
        f"perf overhead: beyond_slowest_shard_s={statistics.median(beyond):.1f} goal_s=10 "
        f"dag_over_bare={ratio:.2f} after_the_scores_s={after:.1f} shards={SHARDS} "
        f"pairs={len(results)}"
    )


if __name__ == "__main__":
    main()
