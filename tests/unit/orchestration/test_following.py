"""A shard's story in the Airflow log: progress, then its result or its cause and its own log."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from nightshard.clusters.documents import Manifest, Progress
from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.slurm import ShardState
from nightshard.clusters.status import ShardStatus, WatchedShard
from nightshard.clusters.submit import ArrayJob
from nightshard.core.errors import UserError
from nightshard.core.story import read_progress
from nightshard.orchestration import following
from nightshard.orchestration.following import AGAIN, Step, follow_shard
from nightshard.orchestration.shard import ShardTrigger

pytestmark = pytest.mark.unit

LAYOUT = RunLayout(PurePosixPath("/work"), "run-1")
WATCH = WatchedShard(LAYOUT, 0, 2, ArrayJob("56", None, "ns-run-1-a1", 1), 10, "f" * 32)
SHARD = {"cluster": "local", "watch": json.loads(json.dumps(WATCH.to_dict()))}

WAITING = ShardStatus(ShardState.WAITING, False, "waiting in the queue", job_id="56_0")
PROGRESS = Progress(
    contract_version=1,
    rank=0,
    attempt=1,
    phase="generating",
    done=4,
    total=10,
    errors=0,
    output_tokens=100,
    tokens_per_s=12.4,
    node="node1",
    job_id="57",
    updated_at="2026-11-24T22:00:00+00:00",
    message=None,
)
RUNNING = replace(WAITING, state=ShardState.RUNNING, node="node1", progress=PROGRESS)
MANIFEST = Manifest.model_construct(node="node1", rows=10)
DONE = replace(RUNNING, state=ShardState.ENDED_WELL, final=True, manifest=MANIFEST)
LOST = replace(RUNNING, state=ShardState.FAILED, final=True, message="out of memory on node1")


class Cluster:
    """A poller and a transport that tell what a test wants."""

    def __init__(self, *told: ShardStatus | Exception) -> None:
        self.told = told
        self.log: list[str] | Exception = ["loading", "no memory"]

    async def watch(self, shard: WatchedShard) -> AsyncIterator[ShardStatus]:
        assert shard == WATCH
        for one in self.told:
            if isinstance(one, Exception):
                raise one
            yield one

    async def tail_log(self, *_: Any) -> list[str]:
        if isinstance(self.log, Exception):
            raise self.log
        return self.log

    async def __aenter__(self) -> "Cluster":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Make the cluster tell these statuses."""

    def use(*told: ShardStatus | Exception) -> Cluster:
        cluster = Cluster(*told)
        monkeypatch.setattr(following, "shared_poller", lambda _: cluster)
        monkeypatch.setattr(following, "open_transport", lambda _: cluster)
        monkeypatch.setattr(following, "tail_log", cluster.tail_log)
        return cluster

    return use


async def steps() -> list[Step]:
    return [step async for step in follow_shard(SHARD)]


async def test_a_shard_that_ends_well_tells_where_it_is_and_returns_its_job(tell) -> None:  # type: ignore[no-untyped-def]
    tell(WAITING, RUNNING, DONE)
    waiting, running, done = await steps()
    assert waiting == Step("Slurm job 56_0: waiting in the queue")
    assert running == Step("generating on node1: 4 of 10 answers, 12 tok/s")
    assert done.result == {"job_id": "56_0", "node": "node1", "rows": 10}
    last = read_progress(done.sentence)
    assert last is not None
    assert (last.done, last.total) == (10, 10)


async def test_a_rate_of_nothing_is_not_told(tell) -> None:  # type: ignore[no-untyped-def]
    slow = PROGRESS.model_copy(update={"tokens_per_s": 0.2})
    tell(replace(RUNNING, progress=slow))
    assert (await steps())[0].sentence == "generating on node1: 4 of 10 answers"


async def test_a_lost_shard_shows_its_cause_and_the_end_of_its_log(tell) -> None:  # type: ignore[no-untyped-def]
    tell(LOST)
    (lost,) = await steps()
    assert lost.failed
    assert lost.sentence.splitlines() == [
        "Slurm job 56_0: out of memory on node1.",
        f"The last lines of {LAYOUT.attempt_log(0, 1)}:",
        "loading",
        "no memory",
        AGAIN,
    ]


async def test_a_lost_shards_cause_is_told_even_where_its_log_cannot_be_had(tell) -> None:  # type: ignore[no-untyped-def]
    cluster = tell(LOST)
    cluster.log = []
    (silent,) = await steps()
    cluster.log = TransportError("No connection")
    (unread,) = await steps()
    assert silent.failed
    assert "out of memory on node1.\nIt left no log at /work/" in silent.sentence
    assert unread.failed
    assert "out of memory on node1.\nIts log cannot be read: No connection" in unread.sentence


async def test_the_trigger_ends_the_task_itself_on_success(tell) -> None:  # type: ignore[no-untyped-def]
    tell(WAITING, DONE)
    (event,) = [event async for event in ShardTrigger(SHARD, 1).run()]
    assert event.xcoms == {"return_value": {"job_id": "56_0", "node": "node1", "rows": 10}}


@pytest.mark.parametrize("end", [LOST, UserError("The host key HAS CHANGED")], ids=["lost", "key"])
async def test_the_trigger_wakes_the_task_with_the_cause(tell, end) -> None:  # type: ignore[no-untyped-def]
    tell(WAITING, end)
    (event,) = [event async for event in ShardTrigger(SHARD, 1).run()]
    said = str(end) if isinstance(end, UserError) else LOST.message
    assert said in event.payload["message"]


def test_a_restarted_triggerer_gets_the_same_trigger_back() -> None:
    path, arguments = ShardTrigger(SHARD, 2).serialize()
    assert path == "nightshard.orchestration.shard.ShardTrigger"
    again = ShardTrigger(**json.loads(json.dumps(arguments)))
    assert (again.shard, again.try_number) == (SHARD, 2)
