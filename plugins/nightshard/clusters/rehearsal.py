"""Asking Slurm what it would do with a profile's batch script, without submitting it."""

import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from nightshard.clusters.errors import SubmissionRejectedError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import render_script
from nightshard.clusters.submission import first_submissions
from nightshard.clusters.transport import Transport

REHEARSAL = "rehearsal"
"""In place of a run's key; no such run exists."""

_START = re.compile(r"to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


def rehearsal_script(
    profile: ClusterProfile, minutes: int, templates: Path, shards: int = 1
) -> str:
    """Render the batch script that a run of so many shards would submit first."""
    layout = RunLayout(PurePosixPath(profile.workdir), REHEARSAL)
    per_job = profile.slurm.shards_per_job
    submission = next(
        iter(first_submissions(layout, shards, profile.slurm.max_array_size, per_job))
    )
    return render_script(
        profile,
        submission,
        world_size=shards,
        max_job_minutes=minutes,
        worker_zip=f"{profile.workdir}/workers/example.zip",
        templates=templates,
    )


async def rehearse(transport: Transport, profile: ClusterProfile, script: str) -> str:
    """Return what ``sbatch --test-only`` says of a script; it checks and submits nothing.

    Raises:
        SubmissionRejectedError: Slurm would refuse it, in its own words.
        TransportError: the connection failed.
    """
    # The run's folder is not there, and sbatch would look for it.
    asked = re.sub(r"^#SBATCH --(chdir|output)=.*\n", "", script, flags=re.MULTILINE)
    done = await transport.run(["sbatch", "--test-only"], stdin=asked, idempotent=True)
    said = (done.stderr + done.stdout).strip()
    if not done.ok:
        words = (
            said.splitlines()[-1]
            .removeprefix("sbatch: error: ")
            .removeprefix("allocation failure: ")
        )
        raise SubmissionRejectedError(f"Slurm on {profile.name!r} would refuse the job: {words}.")
    return said


async def expected_start(
    transport: Transport, profile: ClusterProfile, minutes: int, templates: Path
) -> datetime:
    """Return when Slurm expects to start one shard, from ``sbatch --test-only``.

    Slurm tells it in the cluster's own time zone, so that is asked as well.

    Raises:
        SubmissionRejectedError: see :func:`rehearse`, or Slurm names no time.
        TransportError: the connection failed.
    """
    said = await rehearse(transport, profile, rehearsal_script(profile, minutes, templates))
    zone = (await transport.run(["date", "+%z"], idempotent=True)).stdout.strip()
    found = _START.search(said)
    if found is None:
        raise SubmissionRejectedError(f"Slurm on {profile.name!r} names no start: {said}")
    return datetime.strptime(found[1] + (zone or "+0000"), "%Y-%m-%dT%H:%M:%S%z").astimezone(UTC)
