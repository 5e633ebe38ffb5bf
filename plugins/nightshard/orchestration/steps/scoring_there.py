"""Judging on the cluster instead of here: the other half of the task ``score``."""

import asyncio
import functools
import logging
import tempfile
from pathlib import Path

from upath import UPath

from nightshard.clusters.errors import QueueFullError, TransportError
from nightshard.clusters.patience import patiently
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.scoring import ScoreJob, begin, score_layout
from nightshard.clusters.staging import package_archive
from nightshard.core.run_plan import RunPlan
from nightshard.core.settings import PROJECT_ROOT
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.steps import Json, current_settings, profile_of, store_of
from nightshard.orchestration.steps.scoring import keep
from nightshard.results.score import ScoreCard
from nightshard.results.score_job import (
    ANSWERS,
    OWN_BENCHMARKS,
    PROBLEMS,
    REQUESTS,
    SCORECARD,
    VERDICTS,
)
from nightshard.results.store import local_path, read_json, read_table

log = logging.getLogger(__name__)


def submit(prepared: Json, try_number: int) -> Json | None:
    """Submit the job that judges; None where the profile says that it is done here.

    Returns:
        ``id``, Slurm's, and ``job``, a :class:`ScoreJob` as JSON.

    Raises:
        UserError: Slurm refused, or the cluster's disk is full.
    """
    run = RunPlan.from_dict(prepared["plan"])
    profile = profile_of(run)
    if profile.scoring.where == "airflow":
        return None
    job = asyncio.run(_submit(run, profile, try_number))
    return {"id": job.job.element(0), "job": job.to_dict()}


async def _submit(run: RunPlan, profile: ClusterProfile, try_number: int) -> ScoreJob:
    store, settings = store_of(run), current_settings()
    files: dict[str, Path | bytes] = {
        name: local_path(path) or path.read_bytes()
        for name, path in (
            (REQUESTS, store.requests),
            (PROBLEMS, store.problems),
            (ANSWERS, store.answers),
        )
    }
    if settings.benchmarks.is_dir():
        files |= {
            f"{OWN_BENCHMARKS}/{path.relative_to(settings.benchmarks)}": path.read_bytes()
            for path in sorted(settings.benchmarks.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
    archive = package_archive(PROJECT_ROOT / "plugins", "nightshard")

    async def begin_over_ssh() -> ScoreJob:
        async with open_transport(profile) as transport:
            try:
                return await begin(
                    transport,
                    profile,
                    score_layout(profile, run.run_key),
                    files,
                    archive=archive,
                    templates=settings.templates,
                    owner=try_number,
                )
            except QueueFullError as error:  # there will be room: as if it could not be asked
                raise TransportError(str(error)) from None

    return await patiently(begin_over_ssh, log.warning)


def fetch(prepared: Json) -> None:
    """Bring verdicts and scores into the run's store.

    Raises:
        UserError: no benchmark could be scored.
    """
    run = RunPlan.from_dict(prepared["plan"])
    profile = profile_of(run)
    layout = score_layout(profile, run.run_key)

    async def fetch_over_ssh(folder: Path) -> None:
        async with open_transport(profile) as transport:
            for name in (VERDICTS, SCORECARD):
                await transport.get_file(layout.run / name, folder / Path(name).name)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(patiently(functools.partial(fetch_over_ssh, folder), log.warning))
        verdicts = read_table(UPath(folder / Path(VERDICTS).name))
        card = ScoreCard.from_dict(read_json(UPath(folder / Path(SCORECARD).name)), verdicts)
    keep(store_of(run), card)
