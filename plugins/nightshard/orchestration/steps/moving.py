"""To the cluster and back: the tasks ``stage``, ``submit_shards`` and ``collect``."""

import asyncio
import functools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nightshard.clusters.collecting import collect_run, read_attempts
from nightshard.clusters.documents import RunIdentity
from nightshard.clusters.layout import shard_name
from nightshard.clusters.patience import patiently
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.staging import preflight, stage_run
from nightshard.clusters.submission import Shard, array_size, first_submissions
from nightshard.clusters.submit import ArrayJob
from nightshard.core.run_plan import RunPlan
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.following import cluster_of
from nightshard.orchestration.steps import Json, layout_of, profile_of, store_of
from nightshard.results.store import RunStore, read_table, write_bytes, write_json

ANSWER_BYTES_PER_TOKEN = 8
"""Room set aside for answers: about 4 characters a token, held as a part and in the output."""

log = logging.getLogger(__name__)


def stage(prepared: Json, identity: RunIdentity) -> None:
    """Copy inputs and spec to the cluster, and whose run it is.

    Raises:
        UserError: the cluster's disk is full or its folder cannot be written.
    """
    run = RunPlan.from_dict(prepared["plan"])
    asyncio.run(_stage(run, prepared["world_size"], identity))


async def _stage(run: RunPlan, world_size: int, identity: RunIdentity) -> None:
    profile = profile_of(run)
    layout = layout_of(profile, run.run_key)
    store = store_of(run)
    files = {
        f"inputs/{shard_name(rank, world_size)}.parquet": store.input(rank, world_size).read_bytes()
        for rank in range(world_size)
    }
    files[layout.identity.name] = identity.to_bytes()
    files["spec.json"] = store.spec.read_bytes()
    needed = sum(map(len, files.values())) + _answer_bytes(store)
    size = _array_size(profile, world_size)

    async def stage_over_ssh() -> None:
        async with open_transport(profile) as transport:
            await preflight(transport, profile, layout, needed, world_size)
            per_job = profile.slurm.shards_per_job
            await stage_run(transport, layout, files, world_size, array_size=size, per_job=per_job)

    await patiently(stage_over_ssh, log.warning)
    log.info("Staged %d files to %s", len(files), layout.run)


def _answer_bytes(store: RunStore) -> int:
    """Return the room that the longest possible answers would take."""
    sampling = read_table(store.requests, ["sampling", "rank"]).to_pylist()
    longest = (int(row["sampling"]["max_tokens"]) for row in sampling if row["rank"] is not None)
    return ANSWER_BYTES_PER_TOKEN * sum(longest)


def submit(prepared: Json) -> list[Json]:
    """Submit a run: one array, or several where Slurm or the site limits their size.

    Returns:
        For each shard: ``number`` and ``count`` for people, ``cluster``, ``job_id``, ``rank``,
        ``rows``, ``shard``, a :class:`Shard`, and ``job``, its :class:`ArrayJob` as JSON. Where the
        queue is full, ``job`` and ``job_id`` are None: the shard's own task waits for room.

    Raises:
        UserError: Slurm refused; the sentence has Slurm's words.
    """
    run = RunPlan.from_dict(prepared["plan"])
    profile = profile_of(run)
    shards = shards_of(run, profile, prepared["rows"])
    jobs = asyncio.run(_submit(profile, shards))
    return [_told(profile, shard, jobs.get(shard.first_rank)) for shard in shards]


def shards_of(run: RunPlan, profile: ClusterProfile, rows: Sequence[int]) -> list[Shard]:
    """Return the shards of a run by rank, given how many rows each has."""
    return [
        Shard(
            layout=layout_of(profile, run.run_key),
            rank=rank,
            world_size=len(rows),
            rows=its_rows,
            fingerprint=run.fingerprint,
            array_size=_array_size(profile, len(rows)),
            worker=run.worker,
            max_job_minutes=run.max_job_minutes,
            per_job=profile.slurm.shards_per_job,
        )
        for rank, its_rows in enumerate(rows)
    ]


def _told(profile: ClusterProfile, shard: Shard, job: ArrayJob | None) -> Json:
    return {
        "number": shard.rank + 1,
        "count": shard.world_size,
        "cluster": profile.name,
        "job_id": job.element(shard.rank) if job else None,
        "rank": shard.rank,
        "rows": shard.rows,
        "shard": shard.to_dict(),
        "job": job.to_dict() if job else None,
    }


def _array_size(profile: ClusterProfile, world_size: int) -> int:
    slurm = profile.slurm
    return array_size(world_size, slurm.max_array_size, slurm.max_submitted, slurm.shards_per_job)


async def _submit(profile: ClusterProfile, shards: Sequence[Shard]) -> dict[int, ArrayJob]:
    """Submit the run's arrays in order, as many as the queue takes now; by their first rank."""
    jobs: dict[int, ArrayJob] = {}
    cluster, any_shard = cluster_of(profile), shards[0]
    for submission in first_submissions(
        any_shard.layout, any_shard.world_size, any_shard.array_size, any_shard.per_job
    ):
        script = cluster.script(any_shard, submission)
        job = await patiently(
            functools.partial(cluster.admission.submit_now, submission, script), log.warning
        )
        if job is None:
            log.info("The queue is full; %s and later arrays wait for room", submission.job_name)
            break
        jobs[submission.first_rank] = job
        how = "Found the earlier submission" if job.adopted else "Submitted"
        log.info(
            "%s: Slurm array %s, %d elements, %s", how, job.job_id, submission.elements, job.name
        )
    return jobs


def collect(prepared: Json) -> None:
    """Bring outputs and manifests into the store, each checked against its checksum."""
    run = RunPlan.from_dict(prepared["plan"])
    world_size = prepared["world_size"]
    if world_size == 0:
        return
    profile = profile_of(run)
    layout = layout_of(profile, run.run_key)
    store = store_of(run)

    async def collect_over_ssh(folder: Path) -> None:
        async with open_transport(profile) as transport:
            await collect_run(transport, layout, world_size, folder)
            attempts = await read_attempts(transport, layout)
        write_json(store.attempts, [one.model_dump() for one in attempts])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(patiently(lambda: collect_over_ssh(folder), log.warning))
        for file in sorted(folder.iterdir()):
            write_bytes(store.outputs / file.name, file.read_bytes())
    log.info("Collected %d shards from %s", world_size, layout.outputs)
