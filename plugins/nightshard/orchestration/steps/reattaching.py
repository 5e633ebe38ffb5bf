"""Taking a shard over in a later try of its task: after a clear in the UI, or a retry."""

import asyncio
import dataclasses

from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import render_script
from nightshard.clusters.slurm import ShardState
from nightshard.clusters.status import ShardStatus, WatchedShard
from nightshard.clusters.submit import ArrayJob, submit_array
from nightshard.clusters.transport import Transport
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.following import poller_options
from nightshard.orchestration.steps import Json, current_settings, profile_named

ALIVE = {ShardState.WAITING, ShardState.RUNNING}


def take_over(shard: Json, try_number: int) -> Json:
    """Make a later try the owner of a shard, and give the shard another attempt if it failed.

    Args:
        shard: what ``submit_shards`` returned for it.
        try_number: the Airflow task's try.

    Returns:
        The shard with the job to watch: its latest one where that is alive or has succeeded, else
        a new one of this shard alone.

    Raises:
        UserError: Slurm refuses the new attempt, or the cluster cannot be logged in to.
    """
    profile = profile_named(shard["cluster"])
    job = asyncio.run(_job_to_watch(profile, shard, try_number))
    watch = {**shard["watch"], "job": job.to_dict()}
    return {**shard, "job_id": job.job_id, "watch": watch}


async def _job_to_watch(profile: ClusterProfile, shard: Json, try_number: int) -> ArrayJob:
    watched = WatchedShard.from_dict(shard["watch"])
    layout, rank = watched.layout, watched.rank
    async with open_transport(profile) as transport:
        # First of all: from here on the earlier try, if it still lives, may not cancel anything.
        await transport.put_bytes(layout.owner(rank), str(try_number).encode())
        attempt = watched.job.attempt
        while await transport.exists(layout.submission(attempt + 1, rank)):
            attempt += 1
        if attempt > watched.job.attempt:
            job = await _submit(transport, profile, shard, watched, attempt)
            watched = dataclasses.replace(watched, job=job)
        status = await _look(profile, watched)
        if status.succeeded or not status.final:
            return watched.job
        return await _submit(transport, profile, shard, watched, attempt + 1)


async def _look(profile: ClusterProfile, watched: WatchedShard) -> ShardStatus:
    """Find out whether the job is alive, has succeeded or has failed."""
    poller = ClusterPoller(lambda: open_transport(profile), **poller_options(profile))
    async for status in poller.watch(watched):
        if status.final or status.state in ALIVE:
            return status
    raise AssertionError  # the last status is final


async def _submit(
    transport: Transport, profile: ClusterProfile, shard: Json, watched: WatchedShard, attempt: int
) -> ArrayJob:
    """Submit an attempt of one shard, or find it submitted already."""
    script = render_script(
        profile,
        watched.layout,
        world_size=watched.world_size,
        attempt=attempt,
        max_job_minutes=shard["max_job_minutes"],
        worker_zip=shard["worker"],
        templates=current_settings().templates,
        rank=watched.rank,
    )
    return await submit_array(transport, watched.layout, script, 1, attempt, rank=watched.rank)
