"""A thousand runs on a cluster in memory, each with its own faults, all of them whole in the end.

A failure prints the seed and its story. ``NIGHTSHARD_SEED=17`` runs that seed alone, and
``NIGHTSHARD_SEEDS=10000`` runs more of them.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.simulation.run import Result, simulate

pytestmark = pytest.mark.faults

ONE = os.environ.get("NIGHTSHARD_SEED")
SEEDS = [int(ONE)] if ONE else list(range(int(os.environ.get("NIGHTSHARD_SEEDS", "1000"))))
BATCH = 50
A_THOUSAND = 1000
BATCHES = [SEEDS[at : at + BATCH] for at in range(0, len(SEEDS), BATCH)]
SHOWN_LINES = 400

MUST_HAPPEN = {
    "accounts down at sacct",
    "bad configuration",
    "cancelled by hand",
    "claim held",
    "clocks hours apart",
    "connection cut before poll",
    "connection cut before sbatch",
    "connection cut while a file is created",
    "engine crashed",
    "file read while it is written",
    "job ids recycled",
    "killed by a signal",
    "login refused",
    "node down",
    "orphan process",
    "out of memory (kernel)",
    "out of memory (worker)",
    "poll answer cut off",
    "poll times out",
    "preempted",
    "process killed while it submits",
    "queue limit reached",
    "reply of poll lost",
    "reply of sbatch lost",
    "reply of scancel lost",
    "sbatch failed with an id on stdout",
    "sbatch refused with a record",
    "sbatch runs after its time-out",
    "sbatch timed out after acceptance",
    "sbatch timed out before acceptance",
    "slurmctld down at sbatch",
    "slurmctld down at squeue",
    "stale manifest of another fingerprint",
    "task cleared",
    "task marked failed",
    "time limit",
    "torn part file",
    "triggerer killed",
    "two triggerers at once",
    "wrong checksum",
}
"""Kinds of fault that a thousand seeds bring; their number is written down, see ``kinds``."""


@pytest.fixture(scope="module")
def kinds() -> Iterator[Counter[str]]:
    """Count the injected faults; into a file where NIGHTSHARD_RELIABILITY_DIR is set."""
    counted: Counter[str] = Counter()
    yield counted
    folder = os.environ.get("NIGHTSHARD_RELIABILITY_DIR")
    if folder:
        value = {"seeds": len(SEEDS), "kinds": dict(sorted(counted.items()))}
        Path(folder, "reliability-simulation.json").write_text(json.dumps(value, indent=2) + "\n")


def story(result: Result) -> str:
    shown = "\n".join(line[:300] for line in result.trace[-SHOWN_LINES:])
    problems = "\n".join(result.problems)
    return f"seed {result.scenario.seed}\n{problems}\n\n{shown}\n\nseed {result.scenario.seed}"


@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_fault_loses_or_doubles_anything(seeds: list[int], kinds: Counter[str]) -> None:
    for seed in seeds:
        result = simulate(seed)
        kinds.update(result.kinds)
        assert not result.problems, story(result)


@pytest.mark.skipif(len(SEEDS) < A_THOUSAND, reason="needs a thousand seeds")
def test_every_kind_of_fault_was_among_them(kinds: Counter[str]) -> None:
    assert set(kinds) >= MUST_HAPPEN


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    code = (
        "from support.simulation.run import simulate;"
        "print([simulate(seed).digest for seed in range(20)])"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    stories = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**environ, "PYTHONHASHSEED": chosen},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for chosen in ("1", "2")
    }
    assert stories == {f"{[simulate(seed).digest for seed in range(20)]}\n"}
