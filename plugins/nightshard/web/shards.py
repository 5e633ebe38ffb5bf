"""What one look at a cluster shows of each shard. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from nightshard.clusters.attempts import AttemptRecord
from nightshard.clusters.documents import ExitRecord, Intent, Progress
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.poll import shard_files
from nightshard.clusters.poll_program import FILE_KINDS
from nightshard.clusters.slurm import ShardState
from nightshard.clusters.status import Evidence, Grace, ShardStatus, WatchedShard, judge
from nightshard.clusters.submission import parse_label
from nightshard.clusters.submit import ArrayJob
from nightshard.core.task_states import TASK_ENDED
from nightshard.web.looking import Found

DONE = "done"
"""The decision after an attempt that needs none."""

_ENOUGH_S = 1e9
_SUBMISSION = re.compile(r"submission-([^/]+)\.json")


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard as Airflow knows it.

    Attributes:
        layout: the run's remote paths.
        rank: from 0; people call it ``rank + 1``.
        world_size: number of shards of the run.
        rows: answers that it owes.
        fingerprint: fingerprint that its manifest must carry.
        state: state of its mapped task, None while there is none.
        try_number: of that task.
    """

    layout: RunLayout
    rank: int
    world_size: int
    rows: int
    fingerprint: str
    state: str | None = None
    try_number: int = 0

    @property
    def number(self) -> int:
        """What people call it."""
        return self.rank + 1

    @property
    def over(self) -> bool:
        """Whether Airflow has ended it."""
        return self.state in TASK_ENDED


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of a shard.

    Attributes:
        attempt: its number, from 1.
        job_id: ``<array id>_<index>``, None until Slurm's answer is known.
        log: its log on the cluster.
        log_size: in bytes, None while there is none.
        state: what Slurm or its record says, in words.
        node: where it runs or ran, as far as known.
        exit_code: of the worker, where known.
        elapsed_s: run time in seconds, where known.
        decision: what was decided at its end.
        alive: Slurm lists it as waiting or running.
    """

    attempt: int
    job_id: str | None
    log: str
    log_size: int | None = None
    state: str = ""
    node: str | None = None
    exit_code: int | None = None
    elapsed_s: int | None = None
    decision: str = ""
    alive: bool = False


@dataclass(frozen=True, slots=True)
class ShardLook:
    """What a look shows of one shard.

    Attributes:
        message: one sentence on its state.
        state: of its latest attempt; None before the first is submitted.
        final: nothing more will come, also no other attempt.
        status: of its latest attempt.
        progress: its own account, of whichever attempt wrote last.
        attempts: all, in order.
    """

    message: str
    state: ShardState | None = None
    final: bool = False
    status: ShardStatus | None = None
    progress: Progress | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def shown(self) -> int:
        """The attempt whose log is of interest: the latest that has a job."""
        return max((one.attempt for one in self.attempts if one.job_id), default=1)

    @property
    def alive(self) -> list[str]:
        """Its jobs that still wait or run."""
        return [one.job_id for one in self.attempts if one.alive and one.job_id]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        known: dict[str, Any] = {
            "state": self.state.value if self.state else None,
            "final": self.final,
            "message": self.message,
            "job_id": None,
            "node": None,
            "phase": None,
            "done": None,
            "tokens_per_s": None,
            "alive": self.alive,
            "attempts": [
                {name: getattr(one, name) for name in one.__slots__} for one in self.attempts
            ],
        }
        if self.status is None:
            return known
        status, progress, manifest = self.status, self.status.progress, self.status.manifest
        known |= {"job_id": status.job_id, "node": status.node}
        if progress is not None:
            rate = round(progress.tokens_per_s) or None
            known |= {"phase": progress.phase, "tokens_per_s": rate}
        if manifest is not None:
            known |= {"done": manifest.rows, "node": status.node or manifest.node}
        else:
            known["done"] = max(
                (one.done for one in (self.progress, status.record) if one), default=None
            )
        return known


def judge_shard(shard: ShardTask, found: Found) -> ShardLook:
    """Say what one look shows of a shard."""
    intents = sorted(_intents(shard, found), key=lambda one: one[0])
    jobs = [
        ArrayJob(
            intent.job_id,
            intent.cluster,
            intent.name,
            attempt,
            intent.first_rank,
            per_job=intent.per_job,
        )
        for attempt, intent in intents
        if intent.job_id is not None
    ]
    attempts = [_attempt(shard, job, found) for job in jobs]
    attempts += [
        Attempt(attempt, None, str(shard.layout.attempt_log(shard.rank, attempt)), state=words)
        for attempt, intent in intents
        if intent.job_id is None
        for words in [f"refused: {intent.rejected}" if intent.rejected else "being submitted"]
    ]
    attempts.sort(key=lambda one: one.attempt)
    if not jobs:
        return ShardLook(_before(shard, found, attempts), attempts=tuple(attempts))
    status = _judged(shard, jobs[-1], found, patient=not shard.over)
    again = status.record is not None and status.record.again
    running = bool(attempts and any(one.alive for one in attempts))
    final = (status.final and not again) or (shard.over and not running)
    message = status.message
    if again and status.record is not None:
        message = f"{message}; {status.record.decision}"
    if found.complaint is not None and status.record is None and not status.succeeded:
        message, final = f"Slurm does not answer: {found.complaint}", False
    text = found.files.get(str(shard.layout.progress(shard.rank).relative_to(shard.layout.run)))
    return ShardLook(message, status.state, final, status, Progress.read(text), tuple(attempts))


def _before(shard: ShardTask, found: Found, attempts: list[Attempt]) -> str:
    """Say how a shard is that has no job which is known."""
    if attempts:
        return attempts[-1].state
    if not shard.over:
        return "not submitted yet"
    if found.gone:
        return "its files are no longer on the cluster"
    return "it was not submitted"


def _judged(shard: ShardTask, job: ArrayJob, found: Found, *, patient: bool) -> ShardStatus:
    watched = _watched(shard, job)
    grace = 0.0 if patient else _ENOUGH_S
    row = found.rows.get(watched.element)
    evidence = Evidence(queue=row, missing_s=grace, ended_s=grace, **_texts(watched, found))
    return judge(watched, evidence, Grace())


def _watched(shard: ShardTask, job: ArrayJob) -> WatchedShard:
    return WatchedShard(
        shard.layout, shard.rank, shard.world_size, job, shard.rows, shard.fingerprint
    )


def _intents(shard: ShardTask, found: Found) -> Iterator[tuple[int, Intent]]:
    for name, text in found.files.items():
        match = _SUBMISSION.fullmatch(name)
        label = parse_label(match[1]) if match else None
        intent = Intent.read(text) if label else None
        if label and intent and label.covers(shard.rank, intent):
            yield label.attempt, intent


def _texts(watched: WatchedShard, found: Found) -> dict[str, Any]:
    names = zip(FILE_KINDS, shard_files(watched), strict=True)
    return {kind: found.files.get(name) for kind, name in names}


def _attempt(shard: ShardTask, job: ArrayJob, found: Found) -> Attempt:
    watched = _watched(shard, job)
    texts = _texts(watched, found)
    log = shard.layout.attempt_log(shard.rank, job.attempt)
    size = found.sizes.get(str(log.relative_to(shard.layout.run)))
    row = found.rows.get(watched.element)
    known = Attempt(
        job.attempt,
        job.element(shard.rank),
        str(log),
        size,
        alive=row is not None and not row.state.ended,
    )
    record = AttemptRecord.read(texts["record"])
    if record is not None:
        return replace(
            known,
            # A job that others share goes on without this shard.
            alive=known.alive and job.per_job == 1,
            state=record.message,
            node=record.node,
            exit_code=record.exit_code,
            elapsed_s=record.elapsed_s,
            decision="" if record.decision == DONE else record.decision,
        )
    exited = ExitRecord.read(texts["exit_record"])
    if row is not None:
        known = replace(known, state=row.word, node=row.node, elapsed_s=row.elapsed_s)
    elif exited is not None:
        known = replace(known, state="ended" if exited.exit_code == 0 else "failed")
    return replace(known, exit_code=exited.exit_code if exited else None)
