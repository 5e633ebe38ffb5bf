"""To the cluster and back: the tasks ``stage``, ``submit_shards`` and ``collect``."""

import asyncio
import logging
import tempfile
from pathlib import Path

from nightshard.clusters.collecting import collect_run
from nightshard.clusters.layout import shard_name
from nightshard.clusters.script import render_script
from nightshard.clusters.staging import preflight, stage_run
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob, submit_array
from nightshard.core.run_plan import RunPlan
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.steps import Json, current_settings, layout_of, profile_of, store_of
from nightshard.results.store import RunStore, read_table, write_bytes

FIRST_ATTEMPT = 1

ANSWER_BYTES_PER_TOKEN = 8
"""Room set aside for answers: about 4 characters a token, held as a part and in the output."""

log = logging.getLogger(__name__)


def stage(prepared: Json) -> None:
    """Copy inputs and spec to the cluster.

    Raises:
        UserError: the cluster's disk is full or its folder cannot be written.
    """
    run = RunPlan.from_dict(prepared["plan"])
    asyncio.run(_stage(run, prepared["world_size"]))


async def _stage(run: RunPlan, world_size: int) -> None:
    profile = profile_of(run)
    layout = layout_of(profile, run.run_key)
    store = store_of(run)
    files = {
        f"inputs/{shard_name(rank, world_size)}.parquet": store.input(rank, world_size).read_bytes()
        for rank in range(world_size)
    }
    files["spec.json"] = store.spec.read_bytes()
    needed = sum(map(len, files.values())) + _answer_bytes(store)
    async with open_transport(profile) as transport:
        await preflight(transport, profile, layout, needed, world_size)
        await stage_run(transport, layout, files, world_size)
    log.info("Staged %d files to %s", len(files), layout.run)


def _answer_bytes(store: RunStore) -> int:
    """Return the room that the longest possible answers would take."""
    sampling = read_table(store.requests, ["sampling", "rank"]).to_pylist()
    longest = (int(row["sampling"]["max_tokens"]) for row in sampling if row["rank"] is not None)
    return ANSWER_BYTES_PER_TOKEN * sum(longest)


def submit(prepared: Json) -> list[Json]:
    """Submit one array.

    Returns:
        For each shard: ``number`` and ``count`` for people, ``cluster``, ``job_id``, ``rank``,
        ``rows``, ``watch``, a :class:`WatchedShard` as JSON, and for another attempt ``worker``
        and ``max_job_minutes``.

    Raises:
        UserError: Slurm refused; the sentence has Slurm's words.
    """
    run = RunPlan.from_dict(prepared["plan"])
    profile, world_size = profile_of(run), prepared["world_size"]
    layout = layout_of(profile, run.run_key)
    script = render_script(
        profile,
        layout,
        world_size=world_size,
        attempt=FIRST_ATTEMPT,
        max_job_minutes=run.max_job_minutes,
        worker_zip=run.worker,
        templates=current_settings().templates,
    )

    async def submit_over_ssh() -> ArrayJob:
        async with open_transport(profile) as transport:
            return await submit_array(transport, layout, script, world_size, FIRST_ATTEMPT)

    job = asyncio.run(submit_over_ssh())
    how = "Found the earlier submission" if job.adopted else "Submitted"
    log.info("%s: Slurm array %s, %d elements, %s", how, job.job_id, world_size, job.name)
    return [
        {
            "number": rank + 1,
            "count": world_size,
            "cluster": profile.name,
            "job_id": job.job_id,
            "rank": rank,
            "rows": rows,
            "worker": run.worker,
            "max_job_minutes": run.max_job_minutes,
            "watch": WatchedShard(layout, rank, world_size, job, rows, run.fingerprint).to_dict(),
        }
        for rank, rows in enumerate(prepared["rows"])
    ]


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

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(collect_over_ssh(folder))
        for file in sorted(folder.iterdir()):
            write_bytes(store.outputs / file.name, file.read_bytes())
    log.info("Collected %d shards from %s", world_size, layout.outputs)
