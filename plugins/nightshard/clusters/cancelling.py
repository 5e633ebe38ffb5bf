"""Finding the elements of an array by its name, and cancelling exactly those that are meant."""

from collections.abc import Iterable

from nightshard.clusters.commands import squeue_command
from nightshard.clusters.errors import TransportError
from nightshard.clusters.slurm import Row, ShardState, element_id, parse_squeue
from nightshard.clusters.transport import Transport, run_checked

CANCEL_BATCH = 500
_ALIVE = {ShardState.WAITING, ShardState.RUNNING}


async def jobs_named(transport: Transport, name: str, cluster: str | None = None) -> list[Row]:
    """List the elements that have a job name.

    Raises:
        TransportError: squeue did not answer, so nothing is known.
    """
    listed = await transport.run(squeue_command(name=name, cluster=cluster), idempotent=True)
    if not listed.ok:
        raise TransportError(f"squeue did not answer: {' '.join(listed.stderr.split())}")
    return parse_squeue(listed.stdout)


async def cancel_elements(
    transport: Transport,
    job_id: str,
    indices: Iterable[int | None],
    *,
    name: str,
    cluster: str | None = None,
) -> None:
    """Cancel elements of the array with this id *and* this name; ended ones are left as they are.

    The name is looked up first and is no option of ``scancel``: with ``--name``, as with any of its
    filters, ``scancel 7_2`` cancels every waiting element of array 7, because those are one record
    until they start (measured on Slurm 22.05; scancel(1) says so of elements that are not split
    from the array). Without filters it cancels element 2 alone.

    Args:
        transport: connection to the login node.
        job_id: id of the array.
        indices: array indices; None is the job itself where it is no array.
        name: job name; with another one the id was given to somebody else's job meanwhile.
        cluster: its cluster on federated sites.

    Raises:
        TransportError: squeue did not answer, or it is not known whether the cancel arrived.
    """
    alive = {
        row.index
        for row in await jobs_named(transport, name, cluster)
        if row.array_id == job_id and row.name == name and row.state in _ALIVE
    }
    chosen = sorted(alive & set(indices), key=lambda index: -1 if index is None else index)
    ids = [element_id(job_id, index) for index in chosen]
    for at in range(0, len(ids), CANCEL_BATCH):
        where = [f"--clusters={cluster}"] if cluster else []
        command = ["scancel", *where, *ids[at : at + CANCEL_BATCH]]
        await run_checked(transport, command, f"Cancelling {name}")
