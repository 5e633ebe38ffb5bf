"""How fast the result pages answer: a large leaderboard, and single answers among 1,000,000.

Real pages over HTTP, from `nightshard serve` in a process of its own: 500 checkpoints with scores
on 20 benchmarks (with subsets and other metrics beside accuracy), and two runs of 1,000,000 answers
of about 1 kB. The first look at a run reads its small columns once, and a new search all texts;
these first requests are told apart.

    make perf NAME=pages [ARGS=--quick]
"""

import argparse
import datetime
import hashlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from upath import UPath

from nightshard.results.arrow import MERGED_SCHEMA, PLANNED_SCHEMA, PROBLEM_SCHEMA, VERDICT_SCHEMA
from nightshard.results.database import open_database
from nightshard.results.records import MetricRecord, ModelRecord, RunRecord
from nightshard.results.store import RunStore, write_table
from nightshard.results.write import record_run

GOAL_MEDIAN_MS, GOAL_P95_MS = 200, 500
BENCHMARKS, PROBLEMS = 20, 500
WORDS = ("therefore", "let", "the", "sum", "of", "two", "numbers", "be", "x", "and", "so", "that")
NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


@dataclass
class Route:
    """One address.

    Attributes:
        name: for the table.
        path: what is asked.
        milliseconds: of each request but the first.
        first: of the first one.
    """

    name: str
    path: str
    milliseconds: list[float] = field(default_factory=list)
    first: float = 0.0

    @property
    def median(self) -> float:
        """Median of its requests."""
        return statistics.median(self.milliseconds)

    @property
    def p95(self) -> float:
        """The 95th percentile of its requests."""
        return float(np.percentile(self.milliseconds, 95))


def fill_database(url: str, models: int) -> None:
    """Record a run for each checkpoint, with 4 scores on each benchmark."""
    engine = open_database(url)
    rng = np.random.default_rng(1)
    for number in range(models):
        scores = []
        for benchmark in range(BENCHMARKS):
            value = float(rng.random())
            for metric, subset in (
                *(("accuracy", ""), ("accuracy", "hard"), ("pass@5", "")),
                ("truncation_rate", ""),
            ):
                scores.append(
                    MetricRecord(
                        benchmark=f"Benchmark{benchmark:02d}",
                        benchmark_version="1",
                        metric=metric,
                        subset=subset,
                        value=value,
                        ci_low=max(0.0, value - 0.04),
                        ci_high=min(1.0, value + 0.04),
                        n=PROBLEMS,
                        coverage=1.0,
                        judge_version="math-1",
                    )
                )
        when = NOON + datetime.timedelta(hours=number)
        family, step = f"training{number // 25}", 100 * (number % 25)
        record_run(
            engine,
            RunRecord(
                run_key=f"run-{number}",
                model=ModelRecord(
                    name=f"org/{family}-step{step}",
                    revision=hashlib.md5(str(number).encode()).hexdigest(),
                    path="/m",
                    family=family,
                    step=step,
                ),
                fingerprint="f",
                cluster="local",
                status="scored",
                num_shards=8,
                requests=BENCHMARKS * PROBLEMS,
                started_at=when,
                finished_at=when,
                metrics=tuple(scores),
            ),
        )


def fill_store(root: str, key: str, answers: int, seed: int) -> None:
    """Write a run's files as merge and score leave them."""
    rng = np.random.default_rng(seed)
    store = RunStore(UPath(root), key)
    number = np.arange(answers)
    repeats = max(1, answers // (BENCHMARKS * PROBLEMS))
    benchmark = number // (PROBLEMS * repeats) % BENCHMARKS
    texts = [" ".join(rng.choice(WORDS, 200)) for _ in range(997)]
    ids = pa.array([hashlib.md5(f"{one}".encode()).hexdigest() for one in number])
    names = pa.array([f"Benchmark{one:02d}" for one in benchmark])
    problems = pa.array([f"p{one:03d}" for one in number // repeats % PROBLEMS])
    repeat = pa.array(number % repeats, pa.int32())
    shared = {"request_id": ids, "benchmark": names, "problem_id": problems, "repeat_idx": repeat}
    tokens = pa.array(rng.integers(10, 4000, answers), pa.int32())
    ended = pa.array(np.where(rng.random(answers) < 0.02, "length", "stop"))
    text = pa.array([f"{texts[one % 997]} answer {one}" for one in number])
    columns = {**shared, "text": text, "output_tokens": tokens, "finish_reason": ended}
    write_table(store.answers, table(columns, MERGED_SCHEMA))
    right = pa.array(rng.random(answers) < 0.6)
    columns = {**shared, "correct": right, "extracted": problems, "reason": names}
    write_table(store.verdicts, table(columns, VERDICT_SCHEMA))
    asked = pa.array([[{"role": "user", "content": texts[one % 997]}] for one in number])
    write_table(store.requests, table({**shared, "messages": asked}, PLANNED_SCHEMA))
    write_table(store.problems, PROBLEM_SCHEMA.empty_table())


def table(columns: dict[str, pa.Array], schema: pa.Schema) -> pa.Table:
    """Build a table with null for the columns that are not given."""
    rows = len(columns["request_id"])
    return pa.table(
        [columns.get(one.name, pa.nulls(rows, one.type)).cast(one.type) for one in schema],
        schema=schema,
    )


def routes(answers: int) -> list[Route]:
    """Return what is asked."""
    one = hashlib.md5(str(answers // 2).encode()).hexdigest()
    last = answers // 50
    samples = "/runs/run-0/samples"
    return [
        Route("leaderboard, first 100 rows", "/"),
        Route("leaderboard, sorted and filtered", "/?model=training1&sort=Benchmark07&order=asc"),
        Route("leaderboard, best of each family", "/?show=best&sort=mean"),
        Route("leaderboard, all as JSON", "/api/leaderboard"),
        Route("curves of a family", "/curves?family=training1"),
        Route("plot of a curve", "/curves.svg?family=training1&benchmark=Benchmark01"),
        Route("runs", "/runs"),
        Route("a run", "/runs/run-0"),
        Route("answers, first page", samples),
        Route("answers, wrong and truncated", f"{samples}?correct=no&truncated=yes"),
        Route("answers, last page", f"{samples}?page={last}"),
        Route(
            "answers of a benchmark beside a run", f"{samples}?benchmark=Benchmark03&beside=run-1"
        ),
        Route("answers that changed sides", f"{samples}?beside=run-1&changed=yes"),
        Route("one answer", f"{samples}/{one}"),
        Route("answers with a text", f"{samples}?text=answer+77777"),
    ]


def main() -> None:
    """Fill, serve, ask and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="50 models, 50,000 answers, 10 times")
    quick = parser.parse_args().quick
    models, answers, times = (50, 50_000, 10) if quick else (500, 1_000_000, 40)
    with tempfile.TemporaryDirectory(prefix="nightshard-perf-") as name:
        url, store = f"sqlite:///{name}/results.db", f"{name}/store"
        fill_database(url, models)
        for seed, key in enumerate(("run-0", "run-1")):
            fill_store(store, key, answers, seed)
        asked = measure(url, store, routes(answers), times)
    shown = Table("page", "median", "p95", "first", title=f"{models} models, {answers:,} answers")
    for route in asked:
        values = (route.median, route.p95, route.first)
        shown.add_row(route.name, *(f"{value:.0f} ms" for value in values))
    Console().print(shown)
    goals = [max(one.median / GOAL_MEDIAN_MS, one.p95 / GOAL_P95_MS) for one in asked]
    board, page = asked[0], asked[8]
    print(
        f"perf pages: worst_of_goal={max(goals):.2f} leaderboard_ms={board.median:.0f} "
        f"answers_ms={page.median:.0f} first_look_ms={page.first:.0f} "
        f"first_search_ms={asked[-1].first:.0f}"
    )


def measure(url: str, store: str, asked: list[Route], times: int) -> list[Route]:
    """Ask each route in turn, round by round, so that noise meets all alike."""
    server = subprocess.Popen(
        [Path(sys.executable).parent / "nightshard", "serve", "--port", "0"],
        env={
            **os.environ,
            "NIGHTSHARD_DB_URL": url,
            "NIGHTSHARD_STORE": store,
            "PYTHONUNBUFFERED": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None, "nightshard serve did not say where it is"
        with httpx.Client(base_url=found[0].rstrip("/"), timeout=120) as client:
            for number in range(times + 1):
                for route in asked:
                    begun = time.perf_counter()
                    client.get(route.path, headers={"accept": "text/html"}).raise_for_status()
                    spent = (time.perf_counter() - begun) * 1000
                    if number:
                        route.milliseconds.append(spent)
                    else:
                        route.first = spent
    finally:
        server.terminate()
        server.wait()
    return asked


if __name__ == "__main__":
    main()
