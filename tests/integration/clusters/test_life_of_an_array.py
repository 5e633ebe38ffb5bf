"""Stage, submit, watch and collect on a real sshd and a real Slurm."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nightshard.clusters.collecting import collect_run, tail_log
from nightshard.clusters.commands import squeue_command
from nightshard.clusters.errors import (
    CorruptOutputError,
    SubmissionRejectedError,
    TransportError,
)
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.slurm import ShardState, parse_squeue
from nightshard.clusters.ssh import SshTransport
from nightshard.clusters.status import ShardStatus, WatchedShard
from nightshard.clusters.submit import cancel
from nightshard.clusters.transport import CommandResult

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def follow(poller: ClusterPoller, shard: WatchedShard) -> list[ShardStatus]:
    return [status async for status in poller.watch(shard)]


async def jobs_named(transport: SshTransport, name: str) -> set[str]:
    listed = await transport.run(squeue_command(name=name))
    return {row.array_id for row in parse_squeue(listed.stdout)}


async def until(poller: ClusterPoller, shard: WatchedShard, state: ShardState) -> None:
    async for status in poller.watch(shard):
        if status.state is state:
            return
    pytest.fail(f"ended before it was {state}")


async def test_three_shards_are_staged_submitted_watched_and_collected(
    any_runs, tmp_path: Path
) -> None:
    run = await any_runs.stage(world_size=3)
    job = await run.submit()
    poller = any_runs.poller()

    stories = await asyncio.gather(*(follow(poller, run.shard(job, rank)) for rank in range(3)))

    assert [story[-1].state for story in stories] == [ShardState.ENDED_WELL] * 3
    assert all(story[-1].succeeded and story[-1].manifest for story in stories)
    collected = await collect_run(run.transport, run.layout, 3, tmp_path)
    ids = [
        value
        for shard in collected
        for value in pq.read_table(shard.output)["request_id"].to_pylist()
    ]
    assert len(ids) == len(set(ids)) == 6
    assert {shard.manifest.slurm.array_job_id for shard in collected} == {job.job_id}


async def test_all_shards_share_one_question(runs) -> None:
    run = await runs.stage(world_size=4, seconds_per_request=0.5)
    job = await run.submit()
    poller = runs.poller()

    stories = await asyncio.gather(*(follow(poller, run.shard(job, rank)) for rank in range(4)))

    assert sum(len(story) for story in stories) > poller.polls


async def test_a_running_shard_reports_its_progress(runs) -> None:
    run = await runs.stage(world_size=1, seconds_per_request=2.0)
    job = await run.submit()

    story = await follow(runs.poller(), run.shard(job, 0))

    seen = [status.progress for status in story if status.state is ShardState.RUNNING]
    assert any(p is not None and p.phase == "generating" and p.total == 2 for p in seen)
    assert any(status.node and status.node.startswith("node") for status in story)


async def test_the_job_sees_the_profiles_variables_unharmed(runs) -> None:
    run = await runs.stage(world_size=1)
    shown = run.script.replace("-m shard_worker", "-c 'import os; print(os.environ[\"GREETING\"])'")
    job = await run.with_script(shown).submit()

    await follow(runs.poller(), run.shard(job, 0))

    log = await tail_log(run.transport, run.layout, 0, 1)
    assert log == ['it\'s "quoted" $HOME']


async def test_two_submits_of_one_attempt_give_one_job(any_runs) -> None:
    run = await any_runs.stage(world_size=2)
    first = await run.submit()
    second = await run.submit()

    assert second.job_id == first.job_id
    assert (first.adopted, second.adopted) == (False, True)
    assert await jobs_named(run.transport, first.name) == {first.job_id}


async def test_a_submit_that_lost_its_note_finds_the_job_by_name(any_runs) -> None:
    run = await any_runs.stage(world_size=2)
    first = await run.submit()
    note = run.submission.intent
    intent = json.loads(await run.transport.get_bytes(note))
    await run.transport.put_bytes(note, json.dumps({**intent, "job_id": None}).encode())

    again = await run.submit(settle_s=0.5)

    assert (again.job_id, again.adopted) == (first.job_id, True)


class LosesReplies:
    """A transport whose sbatch replies get lost, after Slurm accepted or before it was asked."""

    def __init__(self, inner: SshTransport, losses: int, *, after_acceptance: bool) -> None:
        self._inner = inner
        self._losses = losses
        self._after = after_acceptance

    def __getattr__(self, name: str) -> Callable[..., object]:
        return getattr(self._inner, name)

    async def run(self, command: object, **options: object) -> CommandResult:
        if command[0] == "sbatch" and self._losses:
            self._losses -= 1
            if self._after:
                assert (await self._inner.run(command, **options)).ok
            raise TransportError("The connection closed before the command reported its end.")
        return await self._inner.run(command, **options)


@pytest.mark.parametrize("after_acceptance", [True, False])
async def test_a_lost_reply_of_sbatch_leads_to_exactly_one_job(any_runs, after_acceptance) -> None:
    run = await any_runs.stage(world_size=1)
    lossy = LosesReplies(run.transport, losses=1, after_acceptance=after_acceptance)

    job = await dataclasses.replace(run, transport=lossy).submit(settle_s=0.3)

    assert job.adopted is after_acceptance
    assert await jobs_named(run.transport, job.name) == {job.job_id}


async def test_a_rejected_submission_says_why_and_can_be_mended(any_runs) -> None:
    run = await any_runs.stage(world_size=1)
    wrong = run.script.replace("--partition=main", "--partition=nowhere")

    with pytest.raises(SubmissionRejectedError, match=r"Slurm refused the job: .*partition"):
        await run.with_script(wrong).submit()
    unfit = run.script.replace("--partition=main", "--constraint=gold")
    with pytest.raises(SubmissionRejectedError, match="Invalid feature"):
        await run.with_script(unfit).submit()

    job = await run.submit()
    assert not job.adopted


async def test_a_failing_worker_is_told_with_its_last_lines(any_runs) -> None:
    run = await any_runs.stage(world_size=1)
    await run.transport.put_bytes(run.layout.spec, b"{not json")
    job = await run.submit()

    story = await follow(any_runs.poller(), run.shard(job, 0))

    assert story[-1].final
    assert (story[-1].state, story[-1].exit_code) == (ShardState.FAILED, 2)
    assert "refused its configuration (exit code 2)" in story[-1].message
    assert any("spec.json" in line for line in await tail_log(run.transport, run.layout, 0, 1))


async def test_cancelling_one_element_leaves_its_sibling_alone(any_runs) -> None:
    run = await any_runs.stage(world_size=2, seconds_per_request=1.5)
    job = await run.submit()
    poller = any_runs.poller()
    await until(poller, run.shard(job, 0), ShardState.RUNNING)

    await cancel(run.transport, job, [0])
    cancelled, healthy = await asyncio.gather(
        *(follow(poller, run.shard(job, rank)) for rank in range(2))
    )

    assert cancelled[-1].state is ShardState.CANCELLED
    assert healthy[-1].state is ShardState.ENDED_WELL


async def test_a_recycled_job_id_is_not_cancelled(runs) -> None:
    run = await runs.stage(world_size=1, seconds_per_request=0.5)
    job = await run.submit()
    other = type(job)(job_id=job.job_id, cluster=None, name="ns-another-run-a1", attempt=1)

    await cancel(run.transport, other)

    assert (await follow(runs.poller(), run.shard(job, 0)))[-1].succeeded


async def test_a_job_that_slurm_no_longer_knows_is_judged_by_what_it_left(any_runs) -> None:
    run = await any_runs.stage(world_size=1)
    job = await run.submit()
    assert (await follow(any_runs.poller(), run.shard(job, 0)))[-1].succeeded
    purged = type(job)(job_id="99999999", cluster=None, name=job.name, attempt=1)

    story = await follow(any_runs.poller(), run.shard(purged, 0))

    assert story[-1].succeeded


async def test_a_job_that_left_nothing_is_unknown_for_good_after_the_grace_period(any_runs) -> None:
    run = await any_runs.stage(world_size=1)
    job = await run.submit()
    ghost = type(job)(job_id="99999998", cluster=None, name="ns-ghost-a2", attempt=2)
    other = await any_runs.stage(world_size=1)

    story = await follow(any_runs.poller(), other.shard(ghost, 0))

    assert [status.final for status in story] == [False, True]
    assert story[-1].state is ShardState.UNKNOWN
    assert "without a trace" in story[-1].message


async def test_an_output_that_disagrees_with_its_checksum_is_refused(runs, tmp_path: Path) -> None:
    run = await runs.stage(world_size=1)
    job = await run.submit()
    await follow(runs.poller(), run.shard(job, 0))
    await run.transport.put_bytes(run.layout.output_file(0, 1), b"torn")

    with pytest.raises(CorruptOutputError, match="checksum"):
        await collect_run(run.transport, run.layout, 1, tmp_path)
