"""The shards that share a job with another one: cancelling for one must not end the others."""

from nightshard.clusters.cancelling import jobs_named
from nightshard.clusters.submission import Shard
from nightshard.clusters.transport import Transport


async def others_need(transport: Transport, shard: Shard, attempt: int) -> bool:
    """Say whether an attempt's job still works for another shard.

    It does while one that shares it has neither answers nor a record of this attempt's end. So the
    last of them to be given up is the one for which the job is cancelled.

    Raises:
        TransportError: the connection failed.
    """
    layout = shard.layout
    for rank in shard.companions:
        if rank == shard.rank:
            continue
        for end in (layout.attempt_record(rank, attempt), layout.manifest(rank, shard.world_size)):
            if await transport.exists(end):
                break
        else:
            return True
    return False


async def is_listed(transport: Transport, shard: Shard, job_name: str) -> bool:
    """Say whether Slurm still has the job with this shard under a submission's name.

    Raises:
        TransportError: squeue did not answer.
    """
    rows = await jobs_named(transport, job_name)
    return any(row.index == shard.index and not row.state.ended for row in rows)
