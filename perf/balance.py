"""How evenly shards end: the slowest shard's time over the mean, by three ways to share the work.

``rows`` gives each shard the same number of consecutive rows, as Nightshard's predecessor did,
``static`` splits by estimated cost, and with ``steal`` shards with room take what others have not
begun.

Simulated in virtual time, with the worker's own feed and its claims on a real disk. A shard decodes
one token of every running request a step, and a step takes ``FIXED_S + PER_REQUEST_S * running``.
The estimate by which work is split is each problem's typical length, off by a factor of its own.
Two sets of lengths: a heavy-tailed prior that spreads by rows as the predecessor published for 8
shards (17 to 63 minutes), and lengths measured here with the small model. Four shards of the echo
engine also run for real, as one Slurm array on a local cluster.

    make perf NAME=balance [ARGS=--quick]
"""

import argparse
import heapq
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nightshard.benchmarks.starter import Starter
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.cluster import LocalCluster

sys.path.insert(0, str(PROJECT_ROOT / "shard_worker" / "src"))

from shard_worker import feed as feeds
from shard_worker.board import Board
from shard_worker.feed import Feed, OwnRequests, SharedRequests
from shard_worker.layout import ShardLayout
from shard_worker.rows import Message, Request, Sampling, answers_from_bytes, requests_to_bytes

FIXED_S = 0.015
PER_REQUEST_S = 0.00025
CAPACITY = 128
LIMIT = 32_768
REPEATS = 8
LATE_S = 1200.0
WAYS = ("rows", "static", "steal")


@dataclass(frozen=True)
class Job:
    """One request and how long its answer will be, in tokens."""

    request: Request
    length: int


@dataclass
class Shard:
    """One simulated shard; ``steps`` counts its decoding steps, ``now`` its seconds."""

    feed: Feed
    lengths: dict[str, int]
    now: float = 0.0
    steps: int = 0
    running: list[tuple[int, str]] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)

    def fill(self) -> None:
        """Add what there is room for, as the worker's loop does."""
        limit = min(CAPACITY, max(1, self.feed.share))
        while (room := limit - len(self.running)) > 0:
            if not self.waiting:
                self.waiting.extend(self.feed.more(room, room, lambda _: True))
            if not self.waiting:
                return
            request = self.waiting.popleft()
            end = self.steps + self.lengths[request.request_id]
            heapq.heappush(self.running, (end, request.request_id))

    def next_end(self) -> float:
        """Return when its next request ends."""
        return self.now + (self.running[0][0] - self.steps) * self.step_s()

    def step_s(self) -> float:
        """Return how long a step takes now."""
        return FIXED_S + PER_REQUEST_S * len(self.running)

    def end_one(self) -> None:
        """Go on to the end of its next request."""
        self.now = self.next_end()
        self.steps = self.running[0][0]
        while self.running and self.running[0][0] <= self.steps:
            heapq.heappop(self.running)


def simulate(shards: Sequence[Shard]) -> list[float]:
    """Run shards, each from its own ``now`` on, and return when each ends."""
    ends: list[float] = [0.0] * len(shards)
    queue = []
    for rank, shard in enumerate(shards):
        heapq.heappush(queue, (shard.now, rank))
    while queue:
        _, rank = heapq.heappop(queue)
        shard = shards[rank]
        if shard.running:
            shard.end_one()
        shard.fill()
        ends[rank] = shard.now
        if shard.running:
            heapq.heappush(queue, (shard.next_end(), rank))
    return ends


MEANS = {
    "LiveCodeBench": (511, 6, 13_500.0),
    "AIME24": (30, 10, 12_000.0),
    "AIME25": (30, 10, 12_500.0),
    "AMC23": (40, 10, 7_000.0),
    "GPQADiamond": (198, 3, 6_000.0),
    "MATH500": (500, 1, 2_500.0),
}
"""Problems, repeats and mean length of the six tasks, in the predecessor's order. The means and the
times of a step are ours, chosen so that its split by rows takes and spreads as it published."""

PROBLEM_SIGMA, REPEAT_SIGMA, ESTIMATE_SIGMA = 0.55, 0.35, 0.25


def prior(seed: int) -> list[Job]:
    """Draw a run of the six tasks: lognormal between problems and between repeats of one."""
    chance = random.Random(seed)
    jobs = []
    for benchmark, (problems, repeats, mean) in MEANS.items():
        for problem in range(problems):
            typical = mean * _lognormal(chance, PROBLEM_SIGMA)
            guess = typical * _lognormal(chance, ESTIMATE_SIGMA)
            for repeat in range(repeats):
                length = min(LIMIT, max(1, round(typical * _lognormal(chance, REPEAT_SIGMA))))
                jobs.append(_job(benchmark, problem, repeat, length, min(guess, LIMIT)))
    return jobs


def _lognormal(chance: random.Random, sigma: float) -> float:
    return chance.lognormvariate(-sigma * sigma / 2, sigma)


def _job(benchmark: str, problem: int, repeat: int, length: int, guess: float) -> Job:
    request = Request(
        request_id=f"{benchmark}-{problem:05d}-{repeat:03d}",
        benchmark=benchmark,
        problem_id=str(problem),
        repeat_idx=repeat,
        messages=(Message(role="user", content="?"),),
        sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=LIMIT, seed=0, stop=()),
        cost=guess,
    )
    return Job(request, length)


def measured(questions: int, repeats: int, max_tokens: int, folder: Path) -> list[list[int]]:
    """Run the small model here, and return each question's answer lengths in tokens."""
    starter = Starter()
    requests = [
        Request(
            request_id=f"{problem:03d}-{repeat:02d}",
            benchmark="Starter",
            problem_id=str(problem),
            repeat_idx=repeat,
            messages=tuple(
                Message(role=one["role"], content=one["content"])
                for one in starter.messages(question)
            ),
            sampling=Sampling(1.0, 1.0, max_tokens, 1000 * problem + 7 * repeat, ()),
            cost=100.0,
        )
        for problem, question in enumerate(starter.load()[:questions])
        for repeat in range(repeats)
    ]
    model = next((PROJECT_ROOT / ".nightshard" / "models").iterdir())
    engine = {"name": "vllm", "dtype": "float32", "enforce_eager": True, "options": {}}
    layout = ShardLayout(folder, 0, 1)
    write_run(folder, "static", [[Job(one, 0) for one in requests]], engine, model)
    python = PROJECT_ROOT / ".nightshard" / "worker-env" / "bin" / "python"
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2"}
    subprocess.run(
        [*worker_command(str(python), folder), "--rank", "0", "--world-size", "1"],
        env={**_environment(), **environment},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lengths: list[list[int]] = [[] for _ in range(questions)]
    for answer in answers_from_bytes(layout.output.read_bytes())[0]:
        lengths[int(answer.problem_id)].append(max(1, answer.output_tokens))
    return lengths


def resampled(lengths: Sequence[Sequence[int]], count: int, seed: int) -> list[Job]:
    """Draw ``count`` requests from measured lengths; a problem's mean is its estimate."""
    chance = random.Random(seed)
    jobs = []
    for problem in range(count // REPEATS):
        known = chance.choice(lengths)
        guess = statistics.mean(known) * _lognormal(chance, ESTIMATE_SIGMA)
        jobs += [
            _job("Starter", problem, repeat, chance.choice(known), guess)
            for repeat in range(REPEATS)
        ]
    return jobs


def split(jobs: Sequence[Job], size: int, way: str) -> list[list[Job]]:
    """Cut a run into shards."""
    if way == "rows":
        step = math.ceil(len(jobs) / size)
        return [list(jobs[at : at + step]) for at in range(0, len(jobs), step)]
    shards: list[list[Job]] = [[] for _ in range(size)]
    loads = [(0.0, rank) for rank in range(size)]
    for job in sorted(jobs, key=lambda one: (-one.request.cost, one.request.request_id)):
        load, rank = loads[0]
        shards[rank].append(job)
        heapq.heapreplace(loads, (load + job.request.cost, rank))
    return shards


def write_run(
    folder: Path, balance: str, shards: Sequence[Sequence[Job]], engine: dict[str, Any], model: Path
) -> None:
    """Write a run folder for the worker."""
    (folder / "inputs").mkdir(parents=True)
    spec = {
        "contract_version": 2,
        "run_key": "balance",
        "fingerprint": "f" * 32,
        "world_size": len(shards),
        "model": {"name": model.name, "path": str(model), "revision": "r"},
        "engine": {
            "tensor_parallel": 1,
            "max_model_len": None,
            "gpu_memory_utilization": None,
            **engine,
        },
        "chat_template_args": {},
        "balance": balance,
        "flush": {"rows": 32, "seconds": 10.0},
        "progress_seconds": 2.0,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    for rank, jobs in enumerate(shards):
        rows = requests_to_bytes([job.request for job in jobs])
        ShardLayout(folder, rank, len(shards)).inputs.write_bytes(rows)


def worker_command(python: str, folder: Path) -> list[str]:
    """Return the words that run a shard, but for its rank."""
    return [python, "-m", "shard_worker", "run", "--run-dir", str(folder)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "shard_worker" / "src")}


def simulated(jobs: Sequence[Job], size: int, way: str, late_s: float = 0.0) -> list[float]:
    """Return when each shard of one simulated run ends; the last one begins late."""
    lengths = {job.request.request_id: job.length for job in jobs}
    shards = split(jobs, size, way)
    with tempfile.TemporaryDirectory(prefix="nightshard-balance-") as name:
        folder = Path(name)
        inputs = {rank: [job.request for job in shard] for rank, shard in enumerate(shards)}
        feeds.read_costs = lambda layout: [one.cost for one in inputs[layout.rank]]
        feeds.read_requests = lambda path: inputs[int(path.name[6:11])]
        made: list[Feed] = []
        for rank, requests in inputs.items():
            layout = ShardLayout(folder, rank, len(shards))
            if way == "steal":
                board = Board(layout, 1)
                made.append(SharedRequests(layout, board, board.open(), requests, ()))
            else:
                made.append(OwnRequests(requests, ()))
        begun = [Shard(feed, lengths) for feed in made]
        begun[-1].now = late_s
        return simulate(begun)


def real(
    seconds_per_word: float, ways: Sequence[str], rows: int, seed: int
) -> dict[str, list[float]]:
    """Run 4 shards of the echo engine as one Slurm array on a local cluster, once each way.

    The echo engine takes as long for an answer as the answer is long.

    Returns:
        Each way's seconds of each shard, loading left out.
    """
    chance = random.Random(seed)
    found = {}
    with tempfile.TemporaryDirectory(prefix="nightshard-balance-") as name:
        cluster = LocalCluster(Path(name) / "cluster")
        info = cluster.up()
        try:
            jobs = [_spoken(job) for job in chance.sample(prior(seed), rows)]
            jobs.sort(key=lambda job: job.request.benchmark)
            for way in ways:
                engine = {
                    "name": "echo",
                    "dtype": "auto",
                    "enforce_eager": True,
                    "options": {"concurrency": 8, "seconds_per_word": seconds_per_word},
                }
                folder = info.shared / way
                model = info.shared / "model"
                model.mkdir(exist_ok=True)
                (model / "config.json").write_text("{}")
                write_run(folder, _balance(way), split(jobs, 4, way), engine, model)
                words = " ".join(worker_command(sys.executable, folder))
                subprocess.run(
                    [
                        *("sbatch", "--wait", "--array=0-3", f"--output={folder}/log-%a"),
                        *("--mem=300M", "--time=10", "--partition=main"),
                        f'--wrap={words} --world-size 4 --rank "$SLURM_ARRAY_TASK_ID"',
                    ],
                    env={**_environment(), **info.environment()},
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                found[way] = [_generated(folder, rank) for rank in range(4)]
        finally:
            cluster.down()
    return found


def _spoken(job: Job) -> Job:
    words = " ".join(["w"] * max(1, job.length // 100))
    request = replace(job.request, messages=(Message(role="user", content=words),))
    return Job(request, job.length)


def _balance(way: str) -> str:
    return "steal" if way == "steal" else "static"


def _generated(folder: Path, rank: int) -> float:
    manifest = json.loads(ShardLayout(folder, rank, 4).manifest.read_text())
    return float(manifest["timings"]["generate_s"])


def unevenness(seconds: Sequence[float]) -> float:
    """Return the slowest shard's time over the mean."""
    return max(seconds) / statistics.mean(seconds)


def main() -> None:
    """Simulate, run for real, print the tables and the line that names the goal's figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer seeds, sizes and questions")
    arguments = parser.parse_args()
    seeds = range(2 if arguments.quick else 5)
    sizes = (8, 32) if arguments.quick else (8, 32, 128)
    console = Console(width=100)
    with tempfile.TemporaryDirectory(prefix="nightshard-balance-") as name:
        size = (8, 2, 64) if arguments.quick else (40, 4, 384)
        lengths = measured(*size, Path(name) / "run")
    draws: dict[str, Callable[[int], list[Job]]] = {
        "prior": prior,
        "measured": lambda seed: resampled(lengths, 5160, seed),
    }
    found: dict[tuple[str, int, str], list[list[float]]] = {}
    for source, draw in draws.items():
        for seed in seeds:
            jobs = draw(seed)
            for size in sizes:
                for way in WAYS:
                    found.setdefault((source, size, way), []).append(simulated(jobs, size, way))
    table = Table(title=f"slowest over mean shard, median of {len(seeds)} seeds (least to most)")
    for column in ("lengths", "shards", *WAYS):
        table.add_column(column, justify="right")
    for source in draws:
        for size in sizes:
            row = [_spread(list(map(unevenness, found[source, size, way]))) for way in WAYS]
            table.add_row(source, str(size), *row)
    live = real(0.006, ("steal",), 160, 0) if arguments.quick else real(0.03, WAYS, 160, 0)
    shown = (f"{unevenness(live[way]):.3f}" if way in live else "-" for way in WAYS)
    table.add_row("prior, real", "4", *shown)
    console.print(table)
    rows = found["prior", 8, "rows"]
    between = statistics.median(max(one) / min(one) for one in rows)
    console.print(
        f"By rows at 8 shards the prior's slowest shard takes {between:.1f} times the fastest's; "
        f"the predecessor published {63 / 17:.1f}."
    )
    late = [
        max(simulated(jobs, 8, "static", LATE_S)) / max(simulated(jobs, 8, "steal", LATE_S))
        for jobs in map(prior, seeds)
    ]
    console.print(
        f"Where one of 8 shards begins {LATE_S / 60:.0f} min late, the run takes {_spread(late)} "
        "times as long without stealing."
    )
    steal, static, by_rows = (
        statistics.median(map(unevenness, found["prior", 8, way])) for way in reversed(WAYS)
    )
    worst = max(statistics.median(map(unevenness, found[s, 8, "steal"])) for s in draws)
    print(
        f"perf balance: steal_8={steal:.3f} static_8={static:.3f} rows_8={by_rows:.3f} "
        f"late_static_over_steal={statistics.median(late):.2f} "
        f"steal_8_worst_lengths={worst:.3f} real_steal_4={unevenness(live['steal']):.3f} "
        f"seeds={len(seeds)}"
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
