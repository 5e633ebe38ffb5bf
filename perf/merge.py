"""Merging 1,000,000 answers from 128 shards: speed beside a plain copy, and peak memory.

The plain copy reads each shard's parquet file with pyarrow and writes its rows to one file: no
checksum, no order, no look for missing or doubled answers. Both are a process of their own, which
tells its peak of resident memory; memory is also measured of a process that only imports the same.

    make perf NAME=merge [ARGS=--quick]
"""

import argparse
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from upath import UPath

from nightshard.core.settings import PROJECT_ROOT
from nightshard.results.arrow import ANSWER_SCHEMA
from nightshard.results.merge import ShardOutput, merged_chunks, write_merged

SHARDS = 128
GOAL_SPEED, GOAL_MIB = 0.5, 512
SCHEMA = PROJECT_ROOT / "shard_worker/src/shard_worker/schemas/manifest.schema.json"
WORDS = ("therefore", "let", "the", "sum", "of", "two", "numbers", "be", "x", "and", "so", "that")


def make_run(folder: Path, answers: int) -> None:
    """Write a run: shards of answers of about 1 kB in a random order, and what was expected."""
    rng = random.Random(7)
    ids = [hashlib.md5(str(number).encode()).hexdigest() for number in range(answers)]
    order = np.random.default_rng(7).permutation(answers)
    ranks = np.empty(answers, dtype=np.int32)
    texts = [" ".join(rng.choices(WORDS, k=200)) for _ in range(997)]
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    for rank, part in enumerate(np.array_split(order, SHARDS)):
        ranks[part] = rank
        count = len(part)
        table = pa.table(
            {
                "request_id": [ids[at] for at in part],
                "benchmark": pa.repeat("B", count),
                "problem_id": [str(at // 4) for at in part],
                "repeat_idx": [int(at % 4) for at in part],
                "text": [f"{at} {texts[at % 997]}" for at in part],
                "output_tokens": pa.repeat(250, count),
                "prompt_tokens": pa.repeat(90, count),
                "finish_reason": pa.repeat("stop", count),
                "seconds": pa.repeat(1.5, count),
                "finished_at": pa.repeat(pa.scalar(moment), count),
                "error": pa.nulls(count, pa.string()),
                "rank": pa.repeat(rank, count),
                "attempt": pa.repeat(1, count),
            }
        ).cast(ANSWER_SCHEMA)
        name = f"shard-{rank:05d}-of-{SHARDS:05d}.parquet"
        pq.write_table(table, folder / name, compression="zstd")
        manifest = {
            "contract_version": 2,
            "run_key": "run",
            "fingerprint": "f",
            "rank": rank,
            "world_size": SHARDS,
            "attempt": 1,
            "rows": count,
            "errors": 0,
            "output_file": name,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            "prompt_tokens": 90 * count,
            "output_tokens": 250 * count,
            "timings": dict.fromkeys(("import_s", "load_s", "generate_s", "total_s"), 1.0),
            "gpu": None,
            "node": "node1",
            "slurm": dict.fromkeys(("job_id", "array_job_id", "array_task_id", "cluster")),
            "versions": {},
            "started_at": moment.isoformat(),
            "finished_at": moment.isoformat(),
        }
        (folder / f"{rank:05d}.json").write_text(json.dumps(manifest))
    pq.write_table(pa.table({"request_id": ids, "rank": ranks}), folder / "expected.parquet")


def merge(folder: Path) -> None:
    """Merge as the task ``merge`` does."""
    manifests = [json.loads((folder / f"{rank:05d}.json").read_text()) for rank in range(SHARDS)]
    shards = [ShardOutput(folder / one["output_file"], one) for one in manifests]
    chunks = merged_chunks(
        pq.read_table(folder / "expected.parquet"),
        shards,
        run_key="run",
        fingerprint="f",
        manifest_schema=json.loads(SCHEMA.read_text()),
    )
    write_merged(UPath(folder / "merged.parquet"), chunks)


def copy(folder: Path) -> None:
    """Copy all rows."""
    files = [folder / f"shard-{rank:05d}-of-{SHARDS:05d}.parquet" for rank in range(SHARDS)]
    with pq.ParquetWriter(folder / "copy.parquet", ANSWER_SCHEMA, compression="zstd") as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


WAYS = {"merge": merge, "copy": copy, "nothing": lambda _: None}


def be(way: str, folder: Path) -> None:
    """Do one thing, and print its seconds and the peak of memory in MiB."""
    began = time.perf_counter()
    WAYS[way](folder)
    seconds = time.perf_counter() - began
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    peak = int(next(line.split()[1] for line in status.splitlines() if "VmHWM" in line)) / 1024
    print(json.dumps([seconds, peak]))


def measure(way: str, folder: Path) -> tuple[float, float]:
    """Do one thing in a process of its own."""
    command = [sys.executable, __file__, "--be", way, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 answers, one pair")
    parser.add_argument("--be", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        be(arguments.be, arguments.folder)
        return
    answers, rounds = (100_000, 1) if arguments.quick else (1_000_000, 3)
    found: dict[str, list[tuple[float, float]]] = {"merge": [], "copy": []}
    with tempfile.TemporaryDirectory(prefix="perf-merge-") as name:
        folder = Path(name)
        make_run(folder, answers)
        size = sum(file.stat().st_size for file in folder.glob("shard-*.parquet"))
        floor = measure("nothing", folder)[1]
        for turn in range(rounds):
            for way in ("merge", "copy") if turn % 2 == 0 else ("copy", "merge"):
                found[way].append(measure(way, folder))
    ratios = [
        copied[0] / ours[0] for ours, copied in zip(found["merge"], found["copy"], strict=True)
    ]
    table = Table(title=f"{answers:,} answers of {SHARDS} shards, {size / 2**20:,.0f} MiB on disk")
    for column in ("what", "seconds", "answers a second", "peak MiB"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for way, values in found.items():
        seconds = statistics.median(one[0] for one in values)
        peak = max(one[1] for one in values)
        table.add_row(way, f"{seconds:.1f}", f"{answers / seconds:,.0f}", f"{peak:,.0f}")
    table.add_row("imports alone", "", "", f"{floor:,.0f}")
    Console(width=100).print(table)
    peak = max(one[1] for one in found["merge"])
    print(
        f"perf merge: speed_over_copy={statistics.median(ratios):.2f} goal={GOAL_SPEED} "
        f"least={min(ratios):.2f} peak_mib={peak:.0f} goal_mib={GOAL_MIB} "
        f"imports_mib={floor:.0f} answers={answers} rounds={rounds}"
    )


if __name__ == "__main__":
    main()
