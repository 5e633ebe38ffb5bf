"""What a shard's state is, judged from all that is known of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nightshard.clusters.attempts import AttemptRecord
from nightshard.clusters.documents import ExitRecord, Manifest, Progress
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.slurm import STUCK_REASONS, Row, ShardState
from nightshard.clusters.submit import ArrayJob

EXIT_CODES: Mapping[int, tuple[ShardState, str]] = {
    2: (ShardState.FAILED, "the worker refused its configuration"),
    3: (ShardState.OUT_OF_MEMORY, "out of memory"),
    4: (ShardState.FAILED, "the engine crashed"),
    75: (ShardState.FAILED, "the worker was interrupted"),
    76: (ShardState.FAILED, "another job holds the claim on this shard"),
    126: (ShardState.FAILED, "the worker's python cannot be executed"),
    127: (ShardState.FAILED, "the worker's python was not found"),
    137: (ShardState.FAILED, "the worker was killed"),
}
"""Exit codes of ``shard_worker run`` (the contract) and of the shell."""

OVERDUE_S = 900.0
"""How long after its time limit a job may still be listed as running: Slurm ends it up to a minute
late, waits for KillWait, and has partitions with OverTimeLimit."""

EXPECTED_START = ", expected to start at"

CAUSES: Mapping[ShardState, str] = {
    ShardState.PREEMPTED: "preempted by Slurm",
    ShardState.NODE_FAILURE: "its node failed",
    ShardState.TIME_LIMIT: "stopped at the time limit",
    ShardState.OUT_OF_MEMORY: "out of memory",
    ShardState.CANCELLED: "cancelled",
    ShardState.REJECTED: "refused by Slurm",
    ShardState.FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class WatchedShard:
    """One shard of an array and what it owes.

    Attributes:
        layout: the run's remote paths.
        rank: the shard.
        world_size: number of shards of the run.
        job: the array.
        rows: answers that the shard owes.
        fingerprint: fingerprint that its manifest must carry.
        max_job_minutes: time limit of its job, None where it is not known.
    """

    layout: RunLayout
    rank: int
    world_size: int
    job: ArrayJob
    rows: int
    fingerprint: str
    max_job_minutes: int | None = None

    @property
    def element(self) -> tuple[str, int]:
        """Array id and index, by which Slurm lists it."""
        return self.job.job_id, self.job.index(self.rank)


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What is known of one shard now.

    Attributes:
        state: see :class:`ShardState`.
        final: nothing more will come. ``unknown`` can be final: the job left no trace.
        reason: Slurm's reason, while it waits or for its end.
        node: where it runs or ran.
        start: expected start while it waits, in the cluster's clock.
        job_id: ``<array id>_<index>``.
        exit_code: of the worker, where known.
        elapsed_s: run time in seconds by the cluster's clock, where known.
        progress: the shard's own account of this attempt.
        manifest: the valid manifest; set only if ``state`` is ``ended_well``.
        at_work: this look found it running as it should, so its progress tells the most.
        relieved: its job waits, but other shards have done all its work: it is not needed any more.
        overdue: it runs although Slurm should have ended it long ago.
        record: how the attempt ended, where that was decided before; then nothing else is set.
        message: one sentence for a person.
    """

    state: ShardState
    final: bool
    message: str
    reason: str | None = None
    node: str | None = None
    start: str | None = None
    job_id: str | None = None
    exit_code: int | None = None
    elapsed_s: int | None = None
    progress: Progress | None = None
    manifest: Manifest | None = None
    at_work: bool = False
    relieved: bool = False
    overdue: bool = False
    record: AttemptRecord | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the shard is done: ended, with a valid manifest."""
        return self.final and self.state is ShardState.ENDED_WELL


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that one look at the cluster showed of a shard.

    Attributes:
        queue: its row in squeue.
        accounts: its row in sacct.
        progress: text of ``progress.json``.
        exit_record: text of the attempt's exit record.
        manifest: text of the manifest.
        record: text of the attempt's record.
        missing_s: for how long it has been in no listing although squeue answered.
        ended_s: for how long Slurm has said that it ended.
        accounts_answer: sacct works here, so the cause of an end will show up there.
    """

    queue: Row | None = None
    accounts: Row | None = None
    progress: str | None = None
    exit_record: str | None = None
    manifest: str | None = None
    record: str | None = None
    missing_s: float = 0.0
    ended_s: float = 0.0
    accounts_answer: bool = False


@dataclass(frozen=True, slots=True)
class Grace:
    """How long to wait for what may lag, in seconds.

    Attributes:
        missing_s: a job that no listing shows.
        manifest_s: a manifest after its job ended well (network file systems).
    """

    missing_s: float = 120.0
    manifest_s: float = 30.0


def judge(shard: WatchedShard, seen: Evidence, grace: Grace) -> ShardStatus:
    """Decide what a shard's state is.

    Done means that its job ended *and* that its manifest is valid. A job in no listing is unknown
    for a grace period and then judged by what it left on disk: manifest, else exit record, else
    nothing, which is a final ``unknown``.
    """
    record = AttemptRecord.read(seen.record)
    if record is not None and (record.rank, record.attempt) == (shard.rank, shard.job.attempt):
        return _recorded(record)
    known, row = _known(shard, seen)
    manifest, fault = _manifest(shard, seen.manifest)
    if row is not None and not row.state.ended:
        return _relieved(shard, known, row, manifest) or _alive(known, row, shard.max_job_minutes)
    if manifest is not None and row is None and manifest.attempt < shard.job.attempt:
        # It was there before this job, so it says nothing of the job's end.
        missing = _missing(known, seen, grace, fault)
        if not missing.final:
            return missing
    if manifest is not None:
        return replace(
            known,
            state=ShardState.ENDED_WELL,
            final=True,
            node=known.node or manifest.node,
            manifest=manifest,
            message=f"done on {manifest.node}: {manifest.rows:,} answers, "
            f"{manifest.errors:,} of them errors",
        )
    if row is not None:
        return _ended(known, row, seen, grace, fault)
    return _missing(known, seen, grace, fault)


def _known(shard: WatchedShard, seen: Evidence) -> tuple[ShardStatus, Row | None]:
    """Return what is known whatever the state is, and the row that decides."""
    row = _decisive(seen)
    progress = Progress.read(seen.progress)
    if progress is not None and progress.attempt != shard.job.attempt:
        progress = None
    known = ShardStatus(
        state=ShardState.UNKNOWN,
        final=False,
        message="",
        reason=row.reason if row else None,
        node=(row.node if row else None) or (progress.node if progress else None),
        start=row.start if row else None,
        job_id=shard.job.element(shard.rank),
        exit_code=_exit_code(shard, seen, row),
        elapsed_s=row.elapsed_s if row else None,
        progress=progress,
    )
    return known, row


def _relieved(
    shard: WatchedShard, known: ShardStatus, row: Row, manifest: Manifest | None
) -> ShardStatus | None:
    """Another shard finished this one before its job began; should it begin, it ends at once."""
    waits = row.state is ShardState.WAITING
    if not waits or manifest is None or manifest.attempt != shard.job.attempt:
        return None
    return replace(
        known,
        state=ShardState.ENDED_WELL,
        final=True,
        relieved=True,
        node=manifest.node,
        manifest=manifest,
        progress=None,
        message="done by the other shards before its job began, so the job is cancelled",
    )


def _recorded(record: AttemptRecord) -> ShardStatus:
    return ShardStatus(
        state=ShardState(record.state),
        final=True,
        message=record.message,
        node=record.node,
        job_id=record.job_id,
        exit_code=record.exit_code,
        record=record,
    )


def _decisive(seen: Evidence) -> Row | None:
    if seen.queue is not None:
        return seen.queue
    # sacct lags: what it still calls alive, though squeue has dropped it, says nothing.
    if seen.accounts is not None and seen.accounts.state.ended:
        return seen.accounts
    return None


def _exit_code(shard: WatchedShard, seen: Evidence, row: Row | None) -> int | None:
    record = ExitRecord.read(seen.exit_record)
    if record is not None:
        return record.exit_code
    # Where several shards share a job, its exit code may be another shard's.
    return row.exit_code if row and shard.job.per_job == 1 else None


def _manifest(shard: WatchedShard, text: str | None) -> tuple[Manifest | None, str]:
    manifest = Manifest.read(text)
    if manifest is None:
        return None, "its manifest cannot be read" if text else "it left no manifest"
    fault = manifest.fault(
        run_key=shard.layout.run_key,
        rank=shard.rank,
        world_size=shard.world_size,
        rows=shard.rows,
        fingerprint=shard.fingerprint,
    )
    return (None, fault) if fault else (manifest, "")


def _alive(known: ShardStatus, row: Row, max_job_minutes: int | None) -> ShardStatus:
    if row.state is ShardState.WAITING:
        why = f" ({row.reason})" if row.reason else ""
        if row.reason in STUCK_REASONS:
            why = f" and will not start: {STUCK_REASONS[row.reason]} ({row.reason})"
        elif row.start:
            why += f"{EXPECTED_START} {row.start}"
        return replace(known, state=row.state, message=f"waiting in the queue{why}", progress=None)
    if row.state is ShardState.UNKNOWN:
        return replace(known, message=f"in a state that Slurm calls {row.word}")
    overdue = (
        max_job_minutes is not None
        and row.elapsed_s is not None
        and row.elapsed_s > 60 * max_job_minutes + OVERDUE_S
    )
    late = ", long after its time limit" if overdue else ""
    return replace(
        known,
        state=row.state,
        message=f"running on {known.node or 'its node'}{late}",
        at_work=not overdue,
        overdue=overdue,
    )


def _ended(known: ShardStatus, row: Row, seen: Evidence, grace: Grace, fault: str) -> ShardStatus:
    where = f" on {known.node}" if known.node else ""
    if row.state is ShardState.ENDED_WELL:
        if seen.ended_s < grace.manifest_s:
            return replace(
                known,
                state=ShardState.RUNNING,
                message=f"ended{where}; waiting for its manifest",
            )
        return replace(
            known,
            state=ShardState.FAILED,
            final=True,
            message=f"Slurm says it ended well{where}, but {fault}",
        )
    state: ShardState = row.state
    words = CAUSES[state]
    if state is ShardState.FAILED:
        if known.exit_code is None and seen.ended_s < grace.manifest_s:
            # squeue tells no exit code; the record of it may be late.
            return replace(
                known,
                state=ShardState.RUNNING,
                message=f"ended{where}; waiting for its exit code",
            )
        state, words = _by_exit_code(known.exit_code)
    reason = f" ({row.reason})" if row.reason and row.reason != "NonZeroExitCode" else ""
    return replace(known, state=state, final=True, message=f"{words}{where}{reason}")


def _missing(known: ShardStatus, seen: Evidence, grace: Grace, fault: str) -> ShardStatus:
    record = ExitRecord.read(seen.exit_record)
    # The exit record is the script's last act. Only the cause of a failure may still come, from
    # sacct, which knows of preemption and time limits.
    settled = record is not None and not seen.accounts_answer
    if seen.missing_s < grace.missing_s and not settled:
        return replace(known, message="Slurm does not list it; waiting for more to show")
    if record is None:
        return replace(
            known,
            final=True,
            message=f"the job is gone from Slurm without a trace of its end, and {fault}",
        )
    if record.exit_code == 0:
        if seen.missing_s < grace.manifest_s:
            return replace(known, message="ended; waiting for its manifest")
        state, words = ShardState.FAILED, f"it ended with exit code 0, but {fault}"
    else:
        state, words = _by_exit_code(record.exit_code)
    return replace(known, state=state, final=True, message=words)


def _by_exit_code(code: int | None) -> tuple[ShardState, str]:
    if code is None:
        return ShardState.FAILED, CAUSES[ShardState.FAILED]
    state, words = EXIT_CODES.get(code, (ShardState.FAILED, "failed"))
    return state, f"{words} (exit code {code})"
