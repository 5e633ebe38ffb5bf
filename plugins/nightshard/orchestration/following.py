"""A shard's story, from the shared poller to the Airflow log."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from nightshard.clusters.collecting import tail_log
from nightshard.clusters.pacing import PollBounds
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.status import ShardStatus, WatchedShard
from nightshard.clusters.submit import cancel
from nightshard.core.errors import NightshardError
from nightshard.core.story import ShardProgress, progress_sentence
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.steps import profile_named

LOG_LINES = 25

AGAIN = "Clear this task to run the shard again; it keeps the answers that are finished."


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the story.

    Attributes:
        sentence: what to log; several lines where a shard's own log comes along.
        failed: the shard is lost; the story ends here.
        result: what the task returns; set when the shard is done, and the story ends here.
    """

    sentence: str
    failed: bool = False
    result: dict[str, Any] | None = None


async def follow_shard(shard: Mapping[str, Any]) -> AsyncIterator[Step]:
    """Follow one array element to its end.

    Args:
        shard: a :class:`WatchedShard` as JSON, with the name of its ``cluster`` beside.

    Raises:
        UserError: the cluster can no longer be logged in to.
    """
    profile = await _profile(shard)
    watched = WatchedShard.from_dict(shard["watch"])
    async for status in shared_poller(profile).watch(watched):
        if status.final and not status.succeeded:
            yield Step(await _failure(profile, watched, status), failed=True)
        else:
            yield _step(status, watched)


async def cancel_shard(shard: Mapping[str, Any], try_number: int) -> str:
    """Cancel one array element, unless a later try of its task owns the shard.

    Returns:
        A sentence on what was done.

    Raises:
        NightshardError: the cluster cannot be reached.
    """
    profile = await _profile(shard)
    watched = WatchedShard.from_dict(shard["watch"])
    async with open_transport(profile) as transport:
        owner = await transport.get_bytes(watched.layout.owner(watched.rank))
        if owner is not None and int(owner) != try_number:
            return f"Try {int(owner)} of this task watches the shard now; its job goes on."
        await cancel(transport, watched.job, [watched.rank])
    return f"Cancelled Slurm job {watched.job.job_id}_{watched.rank}."


async def _profile(shard: Mapping[str, Any]) -> ClusterProfile:
    # Reading a small YAML file still blocks; the triggerer's loop serves every other shard.
    return await asyncio.to_thread(profile_named, shard["cluster"])


def shared_poller(profile: ClusterProfile) -> ClusterPoller:
    """Return this process's one poller of a cluster."""
    return ClusterPoller.shared(
        profile.ssh_conn_id,
        lambda: open_transport(profile),
        **poller_options(profile),
    )


def poller_options(profile: ClusterProfile) -> dict[str, Any]:
    """Return what a profile says of how its cluster may be asked, as arguments of a poller."""
    return {
        "bounds": PollBounds(**profile.polling.model_dump()),
        "accounting": profile.slurm.accounting,
    }


def _step(status: ShardStatus, watched: WatchedShard) -> Step:
    if status.manifest is None:
        return Step(_alive(status))
    node, rows = status.manifest.node, status.manifest.rows
    result = {"job_id": status.job_id, "node": node, "rows": rows}
    return Step(progress_sentence(ShardProgress("done", node, rows, watched.rows)), result=result)


async def _failure(profile: ClusterProfile, watched: WatchedShard, status: ShardStatus) -> str:
    """Say why a shard failed, with the last lines of its own log where they can be had."""
    cause = f"Slurm job {status.job_id}: {status.message}."
    try:
        async with open_transport(profile) as transport:
            lines = await tail_log(
                transport, watched.layout, watched.rank, watched.job.attempt, LOG_LINES
            )
    except NightshardError as error:
        return f"{cause}\nIts log cannot be read: {error}"
    log = watched.layout.attempt_log(watched.rank, watched.job.attempt)
    if not lines:
        return f"{cause}\nIt left no log at {log}."
    return "\n".join([cause, f"The last lines of {log}:", *lines, AGAIN])


def _alive(status: ShardStatus) -> str:
    progress = status.progress
    if progress is None or status.node is None:
        return f"Slurm job {status.job_id}: {status.message}"
    return progress_sentence(
        ShardProgress(
            progress.phase,
            status.node,
            progress.done,
            progress.total,
            round(progress.tokens_per_s) or None,
        )
    )
