"""From a shard's JSON to the one that follows it on its cluster, and back to sentences."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from nightshard.clusters.following import Cluster, ShardFollower, ShardOutcome
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.session import cluster_session
from nightshard.clusters.submission import Shard
from nightshard.clusters.submit import ArrayJob
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.steps import current_settings, profile_named

AGAIN = "Clear this task to run the shard again; it keeps the answers that are finished."


def cluster_of(profile: ClusterProfile) -> Cluster:
    """Return the cluster as all tasks and triggers of this event loop share it."""
    return cluster_session(profile, current_settings().templates, lambda: open_transport(profile))


async def shard_follower(
    shard: Mapping[str, Any], try_number: int, tell: Callable[[str], None]
) -> ShardFollower:
    """Make the follower of one shard.

    Args:
        shard: what ``submit_shards`` returned for it.
        try_number: try of the Airflow task.
        tell: takes the sentences of its story.
    """
    # Reading a small YAML file still blocks; the triggerer's loop serves every other shard.
    profile = await asyncio.to_thread(profile_named, shard["cluster"])
    job = ArrayJob.from_dict(shard["job"]) if shard["job"] else None
    return ShardFollower(
        cluster_of(profile), Shard.from_dict(shard["shard"]), job, tell, try_number
    )


def success(outcome: ShardOutcome) -> dict[str, Any]:
    """Return what the task of a shard that is done returns."""
    assert outcome.manifest is not None  # noqa: S101 (the caller asked)
    last = outcome.attempts[-1]
    return {
        "job_id": last.job_id,
        "node": outcome.manifest.node,
        "rows": outcome.manifest.rows,
        "attempts": len(outcome.attempts),
    }


def failure(outcome: ShardOutcome) -> str:
    """Say why a shard is lost, with the last lines of its own log."""
    cause = f"{outcome.message.rstrip('.')}."
    if outcome.attempts:
        decision = outcome.attempts[-1].decision.removeprefix("stop: ")
        cause = f"{cause} No further attempt: {decision}."
    if not outcome.log_lines:
        return f"{cause}\nIt left no log at {outcome.log_file}.\n{AGAIN}"
    return "\n".join([cause, f"The last lines of {outcome.log_file}:", *outcome.log_lines, AGAIN])
