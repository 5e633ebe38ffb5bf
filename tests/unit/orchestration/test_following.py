"""What a shard's task shows and returns, and what its trigger does with the end of the shard."""

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from nightshard.clusters.attempts import AttemptRecord
from nightshard.clusters.documents import Manifest
from nightshard.clusters.following import ShardOutcome
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.submission import Shard
from nightshard.clusters.submit import ArrayJob
from nightshard.core.errors import UserError
from nightshard.orchestration import following
from nightshard.orchestration.following import AGAIN, failure, shard_follower, success
from nightshard.orchestration.shard import ShardTrigger

pytestmark = pytest.mark.unit

SHARD = Shard(RunLayout(PurePosixPath("/work"), "run-1"), 0, 2, 10, "f" * 32, 2, "/w.zip", 60)
TASK = {
    "cluster": "local",
    "shard": json.loads(json.dumps(SHARD.to_dict())),
    "job": ArrayJob("56", None, "ns-run-1-a1", 1).to_dict(),
}
RECORD = AttemptRecord(
    rank=0,
    attempt=2,
    job_id="60_0",
    job_name="ns-run-1-a2-r0",
    state="out_of_memory",
    message="out of memory on node1",
    decision="stop: the same would run out of memory again",
    ended_at="2026-11-25T01:00:00+00:00",
)
DONE = ShardOutcome(Manifest.model_construct(node="node1", rows=10), (RECORD,), "done on node1")
LOST = ShardOutcome(
    None,
    (RECORD,),
    "Slurm job 60_0: out of memory on node1",
    ("loading", "no memory"),
    "/work/attempt-2.log",
)


class Follower:
    """Ends as a test wants; remembers what was asked of it."""

    def __init__(self, end: ShardOutcome | Exception) -> None:
        self.end = end
        self.asked: list[str] = []

    async def own(self) -> None:
        self.asked.append("own")

    async def run(self) -> ShardOutcome:
        self.asked.append("run")
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    async def cancel(self) -> str:
        self.asked.append("cancel")
        return "Cancelled."


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Give the trigger a follower that ends in this way."""

    def use(end: ShardOutcome | Exception) -> Follower:
        follower = Follower(end)

        async def make(*_: Any) -> Follower:
            return follower

        monkeypatch.setattr(following, "shard_follower", make)
        return follower

    return use


async def events(try_number: int = 1) -> list[Any]:
    return [event async for event in ShardTrigger(TASK, try_number).run()]


def test_a_lost_shard_shows_its_cause_the_decision_and_the_end_of_its_log() -> None:
    assert failure(LOST).splitlines() == [
        "Slurm job 60_0: out of memory on node1. No further attempt: the same would run out of "
        "memory again.",
        "The last lines of /work/attempt-2.log:",
        "loading",
        "no memory",
        AGAIN,
    ]


def test_a_shard_without_a_log_says_where_it_would_be() -> None:
    silent = ShardOutcome(None, (), "Slurm refused the job", (), "/work/attempt-1.log")
    assert failure(silent).splitlines() == [
        "Slurm refused the job.",
        "It left no log at /work/attempt-1.log.",
        AGAIN,
    ]


async def test_the_trigger_ends_the_task_itself_on_success(ends) -> None:  # type: ignore[no-untyped-def]
    ends(DONE)
    (event,) = await events()
    assert event.xcoms == {"return_value": success(DONE)}
    assert success(DONE) == {"job_id": "60_0", "node": "node1", "rows": 10, "attempts": 1}


@pytest.mark.parametrize("end", [LOST, UserError("The host key HAS CHANGED")], ids=["lost", "key"])
async def test_the_trigger_wakes_the_task_with_the_cause(ends, end) -> None:  # type: ignore[no-untyped-def]
    ends(end)
    (event,) = await events()
    assert event.payload["message"] == (str(end) if isinstance(end, UserError) else failure(LOST))


async def test_a_later_try_owns_the_shard_before_it_does_anything_else(ends) -> None:  # type: ignore[no-untyped-def]
    first, later = ends(DONE), None
    await events(1)
    later = ends(DONE)
    await events(2)
    assert (first.asked, later.asked) == (["run"], ["own", "run"])


async def test_a_task_that_a_person_ends_cancels_its_shard(ends) -> None:  # type: ignore[no-untyped-def]
    follower = ends(DONE)
    await ShardTrigger(TASK, 1).on_kill()
    assert follower.asked == ["cancel"]


def test_a_restarted_triggerer_gets_the_same_trigger_back() -> None:
    path, arguments = ShardTrigger(TASK, 2).serialize()
    assert path == "nightshard.orchestration.shard.ShardTrigger"
    again = ShardTrigger(**json.loads(json.dumps(arguments)))
    assert (again.shard, again.try_number) == (TASK, 2)


async def test_all_shards_of_a_cluster_share_one_poller() -> None:
    one = await shard_follower(TASK, 1, print)
    other = await shard_follower(TASK, 1, print)
    assert one._cluster.poller is other._cluster.poller
