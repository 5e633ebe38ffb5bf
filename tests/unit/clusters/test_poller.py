"""Everyone who watches a cluster shares one question, and trouble on the way is no job's fault."""

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters import poller as poller_module
from nightshard.clusters.documents import Progress
from nightshard.clusters.errors import LoginError, LoginFailure, TransportError
from nightshard.clusters.pacing import (
    BACKOFF_CEILING_S,
    PollBounds,
    next_interval,
    pause_after,
    remaining_s,
)
from nightshard.clusters.poll import Look
from nightshard.clusters.poll_program import FILE_KINDS
from nightshard.clusters.poller import GATHER_S, ClusterPoller
from nightshard.clusters.slurm import ShardState, expand_indices
from nightshard.clusters.status import ShardStatus
from nightshard.clusters.transport import CommandResult

pytestmark = [pytest.mark.unit, pytest.mark.timeout(20)]

BOUNDS = PollBounds(floor_s=0.01, ceiling_s=0.05, grace_s=0.2, manifest_grace_s=0.1)
NAME = "ns-run-1-a1"
PROGRESS, MANIFEST = (FILE_KINDS.index(kind) + 1 for kind in ("progress", "manifest"))


class Cluster:
    """Answers polls as a cluster whose jobs a test moves along."""

    def __init__(self, lab) -> None:
        self.lab = lab
        self.states: dict[int, str] = {}
        self.files: dict[tuple[int, int], str] = {}
        self.scripts: list[str] = []
        self.squeue_status = 0
        self.asked = asyncio.Event()
        self.failures: list[Exception] = []
        self.name = NAME
        self.sacct = "Slurm accounting storage is disabled"
        self.asked_accounts = 0
        self.transport = lab.transport(self.answer)

    def answer(self, words: list[str], script: str | None) -> CommandResult | Exception:
        if self.failures:
            return self.failures.pop(0)
        self.scripts.append(script)
        self.asked.set()
        nonce = re.search(r"^N\|([0-9a-f]{16})$", script, re.MULTILINE)[1]
        rows = "".join(
            f"56_{rank}|56|{rank}|57|{word}|None|node1|N/A|1:40|{self.name}\n"
            for rank, word in self.states.items()
        )
        parts = [f"squeue \n{rows}", f"squeue-status {self.squeue_status}\n"]
        indices = re.findall(r"^J\|0\|56\|[^|]*\|0\|1\|.\|([^|]*)\|", script, re.MULTILINE)
        watched = {rank for text in indices for rank in expand_indices(text)}
        if "\nD|" in script and watched - set(self.states):
            self.asked_accounts += 1
            failed = int("|" not in self.sacct and self.sacct != "")
            parts += [f"sacct \n{self.sacct}\n", f"sacct-status {failed}\n"]
        files = "".join(f"{rank} {kind}:{text}\n" for (rank, kind), text in self.files.items())
        parts += [f"files\n={NAME}\n{files}", "awk-status 0\n"]
        text = "".join(f"\n@{nonce} {part}" for part in [*parts, "end\n"])
        return CommandResult(text, "", 0)

    def looks(self) -> list[dict[int, str]]:
        """Return how closely each question looked at each shard."""
        lines = (re.findall(r"^J\|.*$", script, re.MULTILINE) for script in self.scripts)
        return [
            {
                rank: line.split("|")[6]
                for line in some
                for rank in expand_indices(line.split("|")[7])
            }
            for some in lines
        ]

    def finish(self, rank: int) -> None:
        self.states[rank] = "COMPLETED"
        self.files[rank, MANIFEST] = self.lab.manifest_text(rank)


@pytest.fixture
def cluster(lab) -> Cluster:
    return Cluster(lab)


@pytest.fixture
def poller(cluster: Cluster) -> ClusterPoller:
    return ClusterPoller(lambda: cluster.transport, BOUNDS)


async def test_a_shards_story_has_each_change_once(lab, cluster, poller) -> None:
    cluster.states[0] = "PENDING"
    story = []
    async for status in poller.watch(lab.watched(0)):
        story.append(status.state)
        if status.state is ShardState.WAITING:
            cluster.states[0] = "RUNNING"
        if status.state is ShardState.RUNNING:
            cluster.finish(0)

    assert story == [ShardState.WAITING, ShardState.RUNNING, ShardState.ENDED_WELL]


async def test_many_watchers_are_one_question(lab, cluster, poller) -> None:
    for rank in range(4):
        cluster.finish(rank)

    async def last(rank: int) -> ShardStatus:
        return [status async for status in poller.watch(lab.watched(rank))][-1]

    ends = await asyncio.gather(*(last(rank) for rank in range(4)))

    assert all(status.succeeded for status in ends)
    assert poller.polls == len(cluster.transport.commands) == 1


async def test_a_broken_connection_is_told_and_survived(lab, cluster, poller) -> None:
    refused = LoginError(LoginFailure.REFUSED, "Connections to x port 22 are refused.")
    cluster.failures = [TransportError("The connection to the cluster broke."), refused]
    cluster.finish(0)

    story = [status async for status in poller.watch(lab.watched(0))]

    assert [status.final for status in story] == [False, False, True]
    assert story[0].message.endswith("broke; the job is not affected, asking again in 1 s")
    assert "are refused" in story[1].message
    assert story[1].message.endswith("asking again in 2 s")
    assert story[-1].succeeded


async def test_a_changed_host_key_is_raised_to_everyone(lab, cluster, poller) -> None:
    cluster.failures = [LoginError(LoginFailure.HOST_KEY_CHANGED, "The host key HAS CHANGED.")]

    async def watch(rank: int) -> None:
        async for _ in poller.watch(lab.watched(rank)):
            pass

    results = await asyncio.gather(watch(0), watch(1), return_exceptions=True)

    assert [str(result) for result in results] == ["The host key HAS CHANGED."] * 2


async def test_a_mistake_of_ours_does_not_leave_watchers_waiting(lab, cluster, poller) -> None:
    cluster.failures = [ZeroDivisionError("a mistake")]

    with pytest.raises(ZeroDivisionError):
        async for _ in poller.watch(lab.watched(0)):
            pass


async def test_a_job_that_slurm_forgot_is_unknown_for_a_while(lab, cluster, poller) -> None:
    story = [status async for status in poller.watch(lab.watched(0))]

    assert [(s.state, s.final) for s in story] == [
        (ShardState.UNKNOWN, False),
        (ShardState.UNKNOWN, True),
    ]


async def test_a_recycled_job_id_is_not_taken_for_ours(lab, cluster, poller) -> None:
    cluster.states[0] = "RUNNING"
    cluster.name = "ns-somebody-else-a1"

    async for status in poller.watch(lab.watched(0)):
        assert status.state is ShardState.UNKNOWN


async def test_accounts_tell_the_end_that_the_queue_forgot(lab, cluster, poller) -> None:
    cluster.sacct = f"56_0|57|TIMEOUT|0:0|node1|60|Unknown|{NAME}"

    story = [status async for status in poller.watch(lab.watched(0))]

    assert [status.state for status in story] == [ShardState.TIME_LIMIT]


async def test_a_cluster_without_accounts_is_asked_for_them_once(lab, cluster, poller) -> None:
    async for _ in poller.watch(lab.watched(0)):
        pass

    assert poller.polls > 2
    assert cluster.asked_accounts == 1


async def test_accounts_are_left_alone_while_the_queue_knows_the_job(lab, cluster, poller) -> None:
    cluster.sacct = ""
    cluster.states[0] = "RUNNING"
    async for _ in poller.watch(lab.watched(0)):
        if poller.polls == 1:
            cluster.files[0, PROGRESS] = lab.progress_text()
        else:
            cluster.finish(0)

    assert poller.polls >= 3
    assert cluster.asked_accounts == 0


async def test_accounts_that_are_down_are_not_asked_at_every_poll(lab, cluster, poller) -> None:
    cluster.sacct = "sacct: error: Problem talking to the database: Connection refused"

    story = [status async for status in poller.watch(lab.watched(0))]

    assert story[-1].final
    assert poller.polls > 2
    assert cluster.asked_accounts == 1


async def test_a_queue_that_does_not_answer_is_told_and_nothing_is_concluded(
    lab, cluster, poller
) -> None:
    cluster.squeue_status = 1
    cluster.states[0] = "COMPLETED"
    story = []
    async for status in poller.watch(lab.watched(0)):
        story.append(status)
        cluster.squeue_status = 0
        cluster.finish(0)

    assert [status.state for status in story] == [ShardState.UNKNOWN, ShardState.ENDED_WELL]
    assert "Slurm does not answer" in story[0].message
    assert cluster.looks() == [{0: Look.FIRST}, {0: Look.FIRST}]


async def test_the_progress_of_very_many_shards_is_read_in_turns(
    lab, cluster, poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "PROGRESS_PER_POLL", 1)
    cluster.states = dict.fromkeys(range(3), "RUNNING")

    async def watch(rank: int) -> None:
        async for _ in poller.watch(lab.watched(rank)):
            pass

    watching = [asyncio.create_task(watch(rank)) for rank in range(3)]
    while len(cluster.scripts) < 4:
        cluster.asked.clear()
        await cluster.asked.wait()
    for task in watching:
        task.cancel()

    turns = [
        [rank for rank, look in looks.items() if look == "p"] for looks in cluster.looks()[1:4]
    ]
    assert sorted(turns) == [[0], [1], [2]]


class Clock:
    """Seconds that a test can let pass at once."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
async def long_pause(lab, cluster: Cluster) -> AsyncIterator[ClusterPoller]:
    """A poller that has just begun a pause of an hour, with two shards in a quiet queue."""
    clock = Clock()
    bounds = PollBounds(floor_s=0.01, ceiling_s=3600)
    poller = ClusterPoller(lambda: cluster.transport, bounds, clock=clock)
    cluster.states = dict.fromkeys(range(4), "PENDING")

    async def watch(rank: int) -> None:
        async for _ in poller.watch(lab.watched(rank)):
            pass

    watching = [asyncio.create_task(watch(rank), name=f"watch-{rank}") for rank in range(2)]
    await cluster.asked.wait()
    await asyncio.sleep(0)
    clock.ahead = 1e6
    while len(cluster.scripts) < 2:
        cluster.asked.clear()
        await cluster.asked.wait()
    await asyncio.sleep(2 * bounds.floor_s + GATHER_S)
    cluster.asked.clear()
    yield poller
    for task in watching:
        task.cancel()


async def test_a_new_attempt_is_asked_about_soon(lab, cluster, long_pause) -> None:
    polls = long_pause.polls

    status = await anext(long_pause.watch(lab.watched(3)))

    assert status.state is ShardState.WAITING
    assert long_pause.polls == polls + 1


async def test_a_shard_that_is_watched_no_longer_is_no_reason_to_ask(cluster, long_pause) -> None:
    (leaving,) = (task for task in asyncio.all_tasks() if task.get_name() == "watch-0")
    leaving.cancel()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cluster.asked.wait(), 0.3)


async def test_who_stops_watching_stops_the_questions(lab, cluster, poller) -> None:
    cluster.states[0] = "RUNNING"
    hung_up = asyncio.Event()
    watching = poller.watch(lab.watched(0))
    await anext(watching)
    cluster.transport.on_close = hung_up.set

    await watching.aclose()

    await asyncio.wait_for(hung_up.wait(), 5)
    polls = poller.polls
    await asyncio.sleep(5 * BOUNDS.ceiling_s)
    assert poller.polls == polls


async def test_a_poller_that_has_rested_can_watch_again(lab, cluster, poller) -> None:
    for rank in range(3):
        cluster.finish(rank)
        story = [status async for status in poller.watch(lab.watched(rank))]
        assert story[-1].succeeded


@given(st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.integers(0, 100))
def test_intervals_keep_to_the_bounds(quiet: float, remaining: float | None, failures: int) -> None:
    bounds = PollBounds(floor_s=10, ceiling_s=120)

    interval = next_interval(bounds, quiet, remaining, failures)

    assert 10 <= interval <= (max(120, BACKOFF_CEILING_S) if failures else 120)


def test_a_cluster_is_asked_often_after_a_change_and_near_the_end_and_seldom_between() -> None:
    bounds = PollBounds(floor_s=10, ceiling_s=120)

    assert next_interval(bounds, 0, None, 0) == 10
    assert next_interval(bounds, 3600, None, 0) == 120
    assert next_interval(bounds, 3600, 20, 0) == 10


def test_failures_back_off_exponentially() -> None:
    bounds = PollBounds(floor_s=10, ceiling_s=120)

    assert [next_interval(bounds, 0, None, n) for n in (1, 2, 3, 9)] == [10, 20, 40, 300]


def test_the_end_of_a_shard_is_estimated_from_its_progress(lab) -> None:
    def status(**changes: object) -> ShardStatus:
        progress = Progress.read(lab.progress_text(**changes))
        return ShardStatus(ShardState.RUNNING, final=False, message="", progress=progress)

    assert remaining_s(status(done=8), 100) == 25
    assert remaining_s(status(phase="loading", done=0), 100) is None
    assert remaining_s(status(phase="writing"), 100) == 0


@given(st.floats(0.001, 300), st.floats(0, 120), st.floats(0, 1))
def test_neither_jitter_nor_a_slow_answer_brings_the_next_poll_early(
    interval: float, took: float, jitter: float
) -> None:
    pause = pause_after(interval, took, jitter)

    assert pause + took >= interval * (1 - 1e-9)
    assert pause >= took
