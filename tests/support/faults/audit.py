"""What a fault did to a run, counted on the cluster itself and not by what anybody said of it."""

import collections
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from support.faults.run import FaultRun
from support.faults.site import until, workers

from nightshard.clusters.attempts import AttemptRecord
from nightshard.clusters.collecting import collect_run, read_attempts
from nightshard.clusters.following import ShardOutcome

_BEGAN = re.compile(r"shard-\d+-of-\d+, attempt (\d+) on \S+: \d+ requests")


@dataclass(frozen=True)
class Counts:
    """What a user fears, counted.

    Attributes:
        lost: questions without an answer.
        twice: questions with more than one answer.
        orphaned: jobs in the queue and processes on nodes that nobody wants any more.
        doubled: submissions beyond one an attempt, and jobs beyond one that worked at an attempt.
    """

    lost: int
    twice: int
    orphaned: int
    doubled: int


async def audit(run: FaultRun, *, by_hand: int = 0, restarts: int = 0) -> Counts:
    """Count, once all shards of a run are done.

    Args:
        run: the run.
        by_hand: arrays that the test itself submitted besides.
        restarts: times that Slurm itself started an element again.
    """
    ended = [run.outcomes[shard.rank] for shard in run.shards]
    assert all(one.done for one in ended), ([one.message for one in ended], run.told)
    with tempfile.TemporaryDirectory() as folder:
        async with run.lab.transport(direct=True) as transport:
            collected = await collect_run(transport, run.layout, len(run.shards), Path(folder))
        answers = collections.Counter(
            value
            for shard in collected
            for value in pq.read_table(shard.output)["request_id"].to_pylist()
        )
    assert set(answers) <= set(run.request_ids)
    return Counts(
        lost=len(set(run.request_ids) - set(answers)),
        twice=sum(count - 1 for count in answers.values()),
        orphaned=await _orphans(run),
        doubled=_doubled(run) - by_hand - restarts,
    )


async def attempts_of(run: FaultRun) -> list[AttemptRecord]:
    """Read the records of all attempts."""
    async with run.lab.transport(direct=True) as transport:
        return await read_attempts(transport, run.layout)


def ends(outcome: ShardOutcome) -> str:
    """Tell how each attempt of a shard ended and what was decided then."""
    told = []
    for record in outcome.attempts:
        state = "damaged output" if record.damaged else record.state.replace("_", " ")
        if record.decision == "done":
            told.append("done, damaged since" if record.damaged else "done")
        else:
            told.append(f"{state}: {record.decision}")
    return ", then ".join(told)


async def _orphans(run: FaultRun) -> int:
    def count() -> int:
        return len(run.jobs()) + len(workers(run.folder))

    try:
        await until(lambda: count() == 0, "nothing was left", timeout_s=5.0)
    except AssertionError:
        return count()
    return 0


def _doubled(run: FaultRun) -> int:
    doubled = 0
    for intent in run.folder.glob("submission-*.json"):
        name = json.loads(intent.read_text())["name"]
        doubled += max(len(run.lab.site.arrays(name)) - 1, 0)
    for shard in run.shards:
        for log in Path(run.layout.shard(shard.rank)).glob("attempt-*.log"):
            began = [one[1] for one in _BEGAN.finditer(log.read_text(errors="replace"))]
            doubled += max(len(began) - 1, 0)
    return doubled
