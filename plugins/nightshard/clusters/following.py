"""Following one shard to its end, through as many attempts as the causes of their ends allow.

All that has been decided lies on the cluster: the intent and job of each submission, and a record
of each attempt that has ended. So a follower that starts over (a restarted triggerer, a later try
of the Airflow task) walks the same way again, adopts what it finds and decides nothing twice.
"""

import asyncio
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nightshard.clusters.admission import Admission, Connect
from nightshard.clusters.attempts import (
    AttemptRecord,
    Decision,
    RetryLimits,
    asked_again,
    bad_nodes,
    decide,
)
from nightshard.clusters.collecting import is_intact, tail_log
from nightshard.clusters.commands import scancel_command
from nightshard.clusters.companions import is_listed, others_need
from nightshard.clusters.documents import Manifest
from nightshard.clusters.errors import SubmissionRejectedError, TransportError
from nightshard.clusters.patience import Tell, patiently
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import shard_script
from nightshard.clusters.slurm import ShardState
from nightshard.clusters.status import ShardStatus, WatchedShard
from nightshard.clusters.submission import Shard, Submission
from nightshard.clusters.submit import ArrayJob, cancel
from nightshard.clusters.telling import sentence_of
from nightshard.clusters.transport import run_checked
from nightshard.core.errors import NightshardError, UserError

LOG_LINES = 25

# Gone from Slurm's listings, but who knows whether from its queue; or given up by an earlier try,
# whose cancel may have been lost.
_PERHAPS_ALIVE = {ShardState.UNKNOWN, ShardState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster as this process works with it.

    Attributes:
        profile: the cluster.
        templates: folder of the sbatch templates.
        connect: opens or lends the connection.
        poller: asks about all shards at once.
        admission: lets arrays into the queue.
    """

    profile: ClusterProfile
    templates: Path
    connect: Connect
    poller: ClusterPoller
    admission: Admission

    def script(self, shard: Shard, submission: Submission, exclude: Sequence[str] = ()) -> str:
        """Render the batch script of an array.

        Args:
            shard: one of those that it runs.
            submission: which array.
            exclude: nodes that must not be used.
        """
        return shard_script(self.profile, shard, submission, self.templates, exclude)


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """How following a shard ended.

    Attributes:
        manifest: of the answers; None where the shard is lost.
        attempts: all its attempts, in order.
        message: one sentence.
        log_lines: the last lines of the last attempt's log, where the shard is lost.
        log_file: remote path of that log.
    """

    manifest: Manifest | None
    attempts: tuple[AttemptRecord, ...]
    message: str
    log_lines: tuple[str, ...] = ()
    log_file: str = ""

    @property
    def done(self) -> bool:
        """Whether all answers are there, intact."""
        return self.manifest is not None


class ShardFollower:
    """Follows one shard.

    Args:
        cluster: where it runs.
        shard: which one.
        job: array of its first attempt; None where it waits for room in the queue.
        tell: takes the sentences of its story.
        try_number: try of the Airflow task that follows it. A later try than the one that gave a
            shard up gives it another attempt: a person asked for it.
    """

    def __init__(
        self,
        cluster: Cluster,
        shard: Shard,
        job: ArrayJob | None,
        tell: Tell,
        try_number: int = 1,
    ) -> None:
        self._cluster = cluster
        self._shard = shard
        self._job = job
        self._tell = tell
        self._try_number = try_number

    async def run(self) -> ShardOutcome:
        """Follow the shard until it is done or lost.

        Raises:
            UserError: the login can never work as it is, for example because the host key changed.
        """
        attempts: list[AttemptRecord] = []
        while True:
            try:
                job = await self._submitted(attempts)
            except SubmissionRejectedError as error:
                return await self._lost(attempts, str(error))
            status, seen_alive = await self._watch(job)
            ended, decision, manifest = await self._conclude(job, status, attempts, seen_alive)
            attempts.append(ended)
            if manifest is not None:
                return ShardOutcome(manifest, tuple(attempts), sentence_of(status))
            if not decision.again:
                return await self._lost(attempts, f"Slurm job {ended.job_id}: {ended.message}")
            if ended.state in _PERHAPS_ALIVE:
                await patiently(functools.partial(self._cancel_job, job), self._tell)
            self._tell(
                f"Attempt {ended.attempt}, Slurm job {ended.job_id}: {ended.message}; "
                f"{decision.words}"
            )

    async def _conclude(
        self,
        job: ArrayJob,
        status: ShardStatus,
        attempts: Sequence[AttemptRecord],
        seen_alive: bool,
    ) -> tuple[AttemptRecord, Decision, Manifest | None]:
        """Decide what follows an attempt, unless that was decided before."""
        ended = status.record or await self._record(job, status, attempts)
        decision = self._decide([*attempts, ended], seen_alive=seen_alive)
        manifest = None
        if ended.state == ShardState.ENDED_WELL and not ended.damaged:
            manifest = status.manifest or await self._manifest()
            if manifest is None:
                words = "its answers are gone or damaged since"
                ended = ended.model_copy(update={"damaged": True, "message": words})
                decision = asked_again([*attempts, ended])
        if status.record is not None:
            if self._shard.per_job > 1 and decision.again and not status.record.again:
                await self._allow_again(status.record, decision)
            return ended, decision, manifest
        ended = ended.model_copy(update={"again": decision.again, "decision": decision.words})
        written = await self._write(ended)
        if written == ended:
            return ended, decision, manifest
        # Somebody was faster: a triggerer that was taken for dead, or a cancel. His word holds.
        status = dataclasses.replace(status, record=written)
        return await self._conclude(job, status, attempts, seen_alive)

    async def cancel(self) -> str:
        """Cancel what this shard has in the queue or on a node, unless a later try owns it.

        Returns:
            A sentence on what was done.

        Raises:
            NightshardError: the cluster cannot be reached.
        """
        shard, layout = self._shard, self._shard.layout
        attempt = 1
        async with self._cluster.connect() as transport:
            first = self._job or await self._cluster.admission.find(shard.submission(1))
            while True:
                owner = await transport.get_bytes(layout.owner(shard.rank))
                if owner is not None and int(owner) != self._try_number:
                    return f"Try {int(owner)} of this task watches the shard now; its job goes on."
                # The record goes first: it tells a worker to stop even where the cancel is lost,
                # and a later try that the shard was not cancelled for good.
                record = self._ended_by_hand(attempt, first if attempt == 1 else None)
                path = layout.attempt_record(shard.rank, attempt)
                await transport.create_bytes(path, record.to_bytes())
                if await others_need(transport, shard, attempt):
                    pass  # the worker finds the record and ends; its companions go on
                elif attempt > 1:
                    # The name is this shard's alone, and covers an id that is not known yet.
                    name = shard.submission(attempt).job_name
                    await run_checked(transport, scancel_command(name), "Cancelling")
                elif first is not None:
                    await cancel(transport, first, [shard.rank])
                if not await transport.exists(shard.submission(attempt + 1).intent):
                    break
                attempt += 1
        return f"Cancelled attempt {attempt} of shard {shard.rank + 1}."

    async def own(self) -> None:
        """Make this try the shard's owner: from now on an earlier one cancels nothing.

        Raises:
            LoginError: no connection can be made.
            TransportError: the connection failed.
        """
        async with self._cluster.connect() as transport:
            await transport.put_bytes(
                self._shard.layout.owner(self._shard.rank), str(self._try_number).encode()
            )

    def _ended_by_hand(self, attempt: int, job: ArrayJob | None) -> AttemptRecord:
        shard = self._shard
        return AttemptRecord(
            rank=shard.rank,
            attempt=attempt,
            job_id=job.element(shard.rank) if job else "",
            job_name=shard.submission(attempt).job_name,
            state=ShardState.CANCELLED.value,
            gpus=self._cluster.profile.gpus_per_shard(),
            message="cancelled in Airflow",
            decision="stop: somebody cancelled it",
            by_try=self._try_number,
            ended_at=_now(),
        )

    async def _submitted(self, attempts: Sequence[AttemptRecord]) -> ArrayJob:
        """Return the job of the next attempt, submitting it where it is not yet."""
        attempt = len(attempts) + 1
        if attempt == 1 and self._job is not None:
            return self._job
        if attempt > 1 and self._shard.per_job > 1:
            await self._former_job_ended(attempts[-1])
        exclude = bad_nodes(attempts)
        try:
            job = await self._submit(attempt, exclude)
        except SubmissionRejectedError as error:
            if not exclude:
                raise
            # Left without those nodes, a small cluster may have none that fits.
            self._tell(f"{error} Trying again on all nodes.")
            job = await self._submit(attempt, ())
        how = "Found" if job.adopted else "Submitted"
        self._tell(f"{how} attempt {attempt}: Slurm job {job.element(self._shard.rank)}")
        return job

    async def _submit(self, attempt: int, exclude: Sequence[str]) -> ArrayJob:
        submission = self._shard.submission(attempt)
        script = self._cluster.script(self._shard, submission, exclude)
        return await self._cluster.admission.submit(submission, script, self._tell)

    async def _watch(self, job: ArrayJob) -> tuple[ShardStatus, bool]:
        """Follow one attempt; return its last status and whether it was seen before its end."""
        shard = self._shard
        watched = WatchedShard(
            layout=shard.layout,
            rank=shard.rank,
            world_size=shard.world_size,
            job=job,
            rows=shard.rows,
            fingerprint=shard.fingerprint,
            max_job_minutes=shard.max_job_minutes,
        )
        seen_alive = overdue = False
        async for status in self._cluster.poller.watch(watched):
            if status.relieved:
                self._tell(sentence_of(status))
                await patiently(functools.partial(self._cancel_job, job), self._tell)
            if status.final:
                stopped_by_us = overdue and status.state is ShardState.CANCELLED
                return _out_of_time(status) if stopped_by_us else status, seen_alive
            seen_alive |= status.state in {ShardState.WAITING, ShardState.RUNNING}
            self._tell(sentence_of(status))
            if status.overdue and not overdue:
                overdue = True
                await patiently(functools.partial(self._cancel_job, job, for_all=True), self._tell)
        raise AssertionError  # the last status is final

    async def _cancel_job(self, job: ArrayJob, *, for_all: bool = False) -> None:
        async with self._cluster.connect() as transport:
            if for_all or not await others_need(transport, self._shard, job.attempt):
                await cancel(transport, job, [self._shard.rank])

    async def _former_job_ended(self, last: AttemptRecord) -> None:
        """Wait until Slurm has ended the last attempt's job, which other shards may still use.

        All shards of a job begin their next attempt together, in one job again.
        """

        async def listed() -> bool:
            async with self._cluster.connect() as transport:
                return await is_listed(transport, self._shard, last.job_name)

        while await patiently(listed, self._tell):
            self._tell(f"Slurm job {last.job_id} still works for other shards; waiting for its end")
            await asyncio.sleep(self._cluster.profile.polling.ceiling_s)

    async def _record(
        self, job: ArrayJob, status: ShardStatus, attempts: Sequence[AttemptRecord]
    ) -> AttemptRecord:
        """Write down how an attempt ended; its answers are checked against their checksum."""
        manifest, progress = status.manifest, status.progress
        damaged = False
        if manifest is not None:
            damaged = not await patiently(functools.partial(self._intact, manifest), self._tell)
        done = progress.done if progress else attempts[-1].done if attempts else 0
        elapsed = status.elapsed_s
        if elapsed is None and manifest is not None:
            elapsed = round(manifest.timings.total_s)
        return AttemptRecord(
            rank=self._shard.rank,
            attempt=job.attempt,
            job_id=job.element(self._shard.rank),
            job_name=job.name,
            state=status.state.value,
            damaged=damaged,
            exit_code=status.exit_code,
            node=status.node,
            elapsed_s=elapsed,
            gpus=0 if status.relieved else self._cluster.profile.gpus_per_shard(),
            done=manifest.rows if manifest else done,
            message="its answers do not have their checksum" if damaged else status.message,
            by_try=self._try_number,
            ended_at=_now(),
        )

    async def _intact(self, manifest: Manifest) -> bool:
        shard = self._shard
        async with self._cluster.connect() as transport:
            path = shard.layout.output_file(shard.rank, shard.world_size)
            return await is_intact(transport, path, manifest.sha256)

    def _decide(self, attempts: Sequence[AttemptRecord], *, seen_alive: bool) -> Decision:
        last = attempts[-1]
        if last.decision:  # decided before; a later try of the task may still ask for more
            if last.again or last.state == ShardState.ENDED_WELL:
                return Decision(last.again, bad_nodes(attempts), last.decision)
            asked = last.by_try < self._try_number
        else:
            # A try asks once, for what it found: its own attempts are judged by their causes.
            found = all(one.by_try < self._try_number for one in attempts[:-1])
            asked = self._try_number > 1 and not seen_alive and found
        limits = RetryLimits(**self._cluster.profile.retry.model_dump())
        decision = decide(attempts, limits, asked_by_try=self._try_number)
        unwell = last.state != ShardState.ENDED_WELL or last.damaged
        return asked_again(attempts) if asked and unwell and not decision.again else decision

    async def _manifest(self) -> Manifest | None:
        """Read the manifest of a shard that was found done before.

        None where it is gone, or where the answers do not have its checksum any more.
        """
        shard = self._shard
        where = shard.layout.manifest(shard.rank, shard.world_size)

        async def read() -> bytes | None:
            async with self._cluster.connect() as transport:
                return await transport.get_bytes(where)

        manifest = Manifest.read(await patiently(read, self._tell))
        if manifest is None:
            return None
        intact = await patiently(functools.partial(self._intact, manifest), self._tell)
        return manifest if intact else None

    async def _write(self, record: AttemptRecord) -> AttemptRecord:
        """Write a record, or return the one that somebody else has written."""
        path = self._shard.layout.attempt_record(record.rank, record.attempt)

        async def write() -> AttemptRecord:
            async with self._cluster.connect() as transport:
                if await transport.create_bytes(path, record.to_bytes()):
                    return record
                content = await transport.get_bytes(path)
                if content is None:
                    raise TransportError(f"{path} exists, but cannot be seen yet")
                earlier = AttemptRecord.read(content)
                if earlier is None:  # torn
                    await transport.put_bytes(path, record.to_bytes())
                return earlier or record

        return await patiently(write, self._tell)

    async def _allow_again(self, record: AttemptRecord, decision: Decision) -> None:
        """Write down that a person wants another attempt of a shard that was given up.

        A job of several shards starts the workers of all, and each looks whether it is wanted.
        """
        path = self._shard.layout.attempt_record(record.rank, record.attempt)
        wanted = record.model_copy(update={"again": True, "decision": decision.words})

        async def write() -> None:
            async with self._cluster.connect() as transport:
                await transport.put_bytes(path, wanted.to_bytes())

        await patiently(write, self._tell)

    async def _lost(self, attempts: Sequence[AttemptRecord], message: str) -> ShardOutcome:
        """Bring the last lines of the shard's own log along, where they can be had."""
        shard, attempt = self._shard, max(len(attempts), 1)
        lines: list[str] = []
        try:
            async with self._cluster.connect() as transport:
                lines = await tail_log(transport, shard.layout, shard.rank, attempt, LOG_LINES)
        except UserError:
            raise
        except NightshardError as error:
            lines = [f"(the log cannot be read: {error})"]
        log_file = str(shard.layout.attempt_log(shard.rank, attempt))
        return ShardOutcome(None, tuple(attempts), message, tuple(lines), log_file)


def _out_of_time(status: ShardStatus) -> ShardStatus:
    return dataclasses.replace(
        status, state=ShardState.TIME_LIMIT, message="stopped after its time limit"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
