"""Judging on the cluster: one CPU job, submitted once an attempt and followed to its end.

Its folder is that of a run with one shard, named ``<run_key>-score``, so that the same exactly-once
submission serves.
"""

import asyncio
import functools
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nightshard.clusters.cancelling import jobs_named
from nightshard.clusters.collecting import tail_log
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.patience import patiently
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import render_script
from nightshard.clusters.slurm import ShardState
from nightshard.clusters.staging import stage_run
from nightshard.clusters.submission import Submission
from nightshard.clusters.submit import ArrayJob, cancel, submit_array
from nightshard.clusters.transport import Transport, run_checked

TEMPLATE = "score.sbatch.j2"
SUFFIX = "-score"
LOG_LINES = 20

Connect = Callable[[], AbstractAsyncContextManager[Transport]]
"""Gives a connection for a while."""

_ALIVE = {ShardState.WAITING, ShardState.RUNNING}
_NO_RECORD = b'{"exit_code": null}\n'


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """One attempt at judging.

    Attributes:
        layout: of the job's own folder.
        attempt: from 1.
        job: as Slurm knows it.
    """

    layout: RunLayout
    attempt: int
    job: ArrayJob

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "layout": self.layout.to_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ScoreJob":
        """Build from :meth:`to_dict`'s form."""
        layout = RunLayout.from_dict(value["layout"])
        return cls(layout, value["attempt"], ArrayJob.from_dict(value["job"]))


def score_layout(profile: ClusterProfile, run_key: str) -> RunLayout:
    """Return the remote paths of a run's scoring."""
    return RunLayout(PurePosixPath(profile.workdir), f"{run_key}{SUFFIX}")


def score_profile(profile: ClusterProfile) -> ClusterProfile:
    """Return the profile by which the job is rendered: the options and the Python of scoring."""
    scoring = profile.scoring
    worker = profile.worker.model_copy(update={"python": scoring.python})
    changes = {"slurm": scoring.slurm, "worker": worker, "template": TEMPLATE}
    return profile.model_copy(update=changes)


async def begin(
    transport: Transport,
    profile: ClusterProfile,
    layout: RunLayout,
    files: Mapping[str, Path | bytes],
    *,
    archive: tuple[str, bytes],
    templates: Path,
    owner: int,
) -> ScoreJob:
    """Stage what is judged and submit the job; a job that waits or runs already is found again.

    Args:
        transport: to the login node.
        profile: the cluster.
        layout: see :func:`score_layout`.
        files: content by path relative to the job's folder.
        archive: name and content of the zip with Nightshard's code.
        templates: folder of the sbatch templates.
        owner: try of the Airflow task to which the job belongs from now on.

    Raises:
        SubmissionRejectedError: Slurm refused.
        TransportError: the outcome is not known; calling again is safe.
    """
    attempt = await _next_attempt(transport, layout)
    submission = Submission(layout, attempt, range(1), 0, f"a{attempt}")
    name, content = archive
    code = PurePosixPath("code") / name
    # What is there has been read by a job that may still run.
    if not await transport.exists(submission.intent):
        await stage_run(transport, layout, {**files, str(code): content}, 1)
    await transport.put_bytes(layout.owner(0), str(owner).encode())
    script = render_script(
        score_profile(profile),
        submission,
        world_size=1,
        max_job_minutes=max(1, round(profile.scoring.max_job_hours * 60)),
        worker_zip=str(layout.run / code),
        templates=templates,
    )
    return ScoreJob(layout, attempt, await submit_array(transport, submission, script))


async def follow(
    connect: Connect,
    profile: ClusterProfile,
    job: ScoreJob,
    tell: Callable[[str], None],
) -> str | None:
    """Wait for the end of a job.

    Args:
        connect: gives the shared connection.
        profile: the cluster; its polling says how often Slurm is asked.
        job: the attempt.
        tell: takes a sentence whenever something changes.

    Returns:
        None where it judged, else why it did not, with the last lines of its log.

    Raises:
        LoginError: the login can never work as it is.
    """
    polling = profile.polling
    missing_since: float | None = None
    said = ""
    while True:
        look = functools.partial(_look, connect, job)
        exit_code, state = await patiently(look, tell)
        if exit_code is not None:
            return await _verdict(connect, job, exit_code, tell)
        now = time.monotonic()
        if state in _ALIVE:
            missing_since = None
        elif missing_since is None:
            missing_since = now
        elif now - missing_since >= max(polling.grace_s, polling.manifest_grace_s):
            return await _verdict(connect, job, -1, tell)
        if state is not None and state.value != said:
            said = state.value
            tell(f"Slurm job {job.job.element(0)}, which judges the answers: {said}")
        await asyncio.sleep(polling.ceiling_s)


async def give_up(transport: Transport, job: ScoreJob, owner: int) -> bool:
    """Cancel a job, unless it belongs to a later try of the task; tell whether it was.

    Raises:
        TransportError: it is not known whether the cancel arrived.
    """
    said = await transport.get_bytes(job.layout.owner(0))
    if said is None or said.strip() != str(owner).encode():
        return False
    await cancel(transport, job.job)
    return True


async def _next_attempt(transport: Transport, layout: RunLayout) -> int:
    """Return the number after the last attempt that has ended."""
    listing = await run_checked(
        transport,
        ["sh", "-c", 'ls -- "$1" 2>/dev/null || true', "sh", str(layout.shard(0))],
        "Looking for earlier attempts",
    )
    ended = (re.fullmatch(r"exit-a(\d+)", name) for name in listing.split())
    return max((int(match[1]) for match in ended if match), default=0) + 1


async def _look(connect: Connect, job: ScoreJob) -> tuple[int | None, ShardState | None]:
    async with connect() as transport:
        record = await transport.get_bytes(job.layout.exit_record(0, job.attempt))
        if record is not None:
            code = json.loads(record)["exit_code"]
            return (-1 if code is None else int(code)), None
        rows = await jobs_named(transport, job.job.name, job.job.cluster)
    states = [row.state for row in rows if row.array_id == job.job.job_id]
    return None, states[0] if states else None


async def _verdict(
    connect: Connect, job: ScoreJob, exit_code: int, tell: Callable[[str], None]
) -> str | None:
    if exit_code == 0:
        return None

    async def note() -> list[str]:
        # The next attempt is the one after the last with such a record.
        record = job.layout.exit_record(0, job.attempt)
        async with connect() as transport:
            await transport.create_bytes(record, _NO_RECORD)
            return await tail_log(transport, job.layout, 0, job.attempt, LOG_LINES)

    lines = await patiently(note, tell)
    how = "left no exit code" if exit_code < 0 else f"ended with exit code {exit_code}"
    return "\n".join([f"The Slurm job {job.job.element(0)} that judges {how}.", *lines])
