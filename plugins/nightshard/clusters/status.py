"""What a shard's state is, judged from all that is known of it. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

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
    """One array element and what it owes.

    Attributes:
        layout: the run's remote paths.
        rank: array index.
        world_size: number of shards of the run.
        job: the array.
        rows: answers that the shard owes.
        fingerprint: fingerprint that its manifest must carry.
    """

    layout: RunLayout
    rank: int
    world_size: int
    job: ArrayJob
    rows: int
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "workdir": str(self.layout.workdir),
            "run_key": self.layout.run_key,
            "rank": self.rank,
            "world_size": self.world_size,
            "job": self.job.to_dict(),
            "rows": self.rows,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "WatchedShard":
        """Build from :meth:`to_dict`'s form."""
        return cls(
            layout=RunLayout(PurePosixPath(value["workdir"]), value["run_key"]),
            rank=value["rank"],
            world_size=value["world_size"],
            job=ArrayJob.from_dict(value["job"]),
            rows=value["rows"],
            fingerprint=value["fingerprint"],
        )


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What is known of one shard now.

    Attributes:
        state: see :class:`ShardState`.
        final: nothing more will come. ``unknown`` can be final: the job left no trace.
        reason: Slurm's reason, while it waits or for its end.
        node: where it runs or ran.
        start: expected start while it waits, in the cluster's clock.
        job_id: ``<array id>_<rank>``.
        exit_code: of the worker, where known.
        progress: the shard's own account of this attempt.
        manifest: the valid manifest; set if and only if ``state`` is ``ended_well``.
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
    progress: Progress | None = None
    manifest: Manifest | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the shard is done: ended, with a valid manifest."""
        return self.final and self.state is ShardState.ENDED_WELL

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form (progress and manifest as in their files)."""
        plain = asdict(replace(self, progress=None, manifest=None))
        return {
            **plain,
            "state": self.state.value,
            "progress": self.progress.model_dump() if self.progress else None,
            "manifest": self.manifest.model_dump() if self.manifest else None,
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that one look at the cluster showed of a shard.

    Attributes:
        queue: its row in squeue.
        accounts: its row in sacct.
        progress: text of ``progress.json``.
        exit_record: text of the attempt's exit record.
        manifest: text of the manifest.
        missing_s: for how long it has been in no listing although squeue answered.
        ended_s: for how long Slurm has said that it ended.
        accounts_answer: sacct works here, so the cause of an end will show up there.
    """

    queue: Row | None = None
    accounts: Row | None = None
    progress: str | None = None
    exit_record: str | None = None
    manifest: str | None = None
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
        job_id=f"{shard.job.job_id}_{shard.rank}",
        exit_code=_exit_code(seen, row),
        progress=progress,
    )
    if row is not None and not row.state.ended:
        return _alive(known, row)
    manifest, fault = _manifest(shard, seen.manifest)
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


def _decisive(seen: Evidence) -> Row | None:
    if seen.queue is not None:
        return seen.queue
    # sacct lags: what it still calls alive, though squeue has dropped it, says nothing.
    if seen.accounts is not None and seen.accounts.state.ended:
        return seen.accounts
    return None


def _exit_code(seen: Evidence, row: Row | None) -> int | None:
    record = ExitRecord.read(seen.exit_record)
    if record is not None:
        return record.exit_code
    return row.exit_code if row else None


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


def _alive(known: ShardStatus, row: Row) -> ShardStatus:
    if row.state is ShardState.WAITING:
        why = f" ({row.reason})" if row.reason else ""
        if row.reason in STUCK_REASONS:
            why = f" and will not start: {STUCK_REASONS[row.reason]} ({row.reason})"
        elif row.start:
            why += f"{EXPECTED_START} {row.start}"
        return replace(known, state=row.state, message=f"waiting in the queue{why}", progress=None)
    if row.state is ShardState.UNKNOWN:
        return replace(known, message=f"in a state that Slurm calls {row.word}")
    return replace(known, state=row.state, message=f"running on {known.node or 'its node'}")


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
