"""Submitting an array exactly once in effect, and cancelling it."""

import asyncio
import functools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nightshard.clusters.cancelling import cancel_elements, jobs_named
from nightshard.clusters.commands import (
    SubmittedId,
    parse_parsable,
    queue_is_full,
    rejection,
    sacct_command,
    sbatch_command,
    scancel_command,
)
from nightshard.clusters.documents import Intent
from nightshard.clusters.errors import QueueFullError, SubmissionRejectedError, TransportError
from nightshard.clusters.patience import patiently
from nightshard.clusters.slurm import Row, ShardState, element_id, parse_sacct
from nightshard.clusters.submission import Submission
from nightshard.clusters.transport import COMMAND_NOT_FOUND, Transport, run_checked

log = logging.getLogger(__name__)

SETTLE_S = 15.0
"""How long a submission whose reply was lost may take to show up in a listing."""

TRIES = 3


@dataclass(frozen=True, slots=True)
class ArrayJob:
    """One submitted array.

    Attributes:
        job_id: id of the array.
        cluster: its cluster on federated sites, else None.
        name: job name; with the id it stays unmistakable even where ids recycle.
        attempt: attempt of the run, 1 for the first.
        first_rank: first rank of array index 0.
        adopted: it had been submitted before and was found again.
        per_job: shards of one element.
    """

    job_id: str
    cluster: str | None
    name: str
    attempt: int
    first_rank: int = 0
    adopted: bool = False
    per_job: int = 1

    def index(self, rank: int) -> int:
        """Return the array index of a shard."""
        return (rank - self.first_rank) // self.per_job

    def element(self, rank: int) -> str:
        """Return Slurm's id of a shard's element, ``57_3``."""
        return element_id(self.job_id, self.index(rank))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ArrayJob":
        """Build from :meth:`to_dict`'s form."""
        return cls(**value)


async def submit_array(
    transport: Transport, submission: Submission, script: str, *, settle_s: float = SETTLE_S
) -> ArrayJob:
    """Submit an array once, however often this is called and whatever reply gets lost.

    An intent file, created exclusively, comes first; the job name is the key. If an intent is there
    already, or sbatch's reply leaves open whether the job was accepted, the name is looked up in
    squeue and sacct, again after ``settle_s``, and what is found is adopted. Where an array went
    through twice all the same, the oldest is kept and the others are cancelled. The worker's
    exclusive claim is the backstop behind this.

    Args:
        transport: connection to the login node.
        submission: which array of the run, whose files are staged.
        script: the batch script, see :func:`nightshard.clusters.script.render_script`.
        settle_s: how long a lost submission may take to show up.

    Raises:
        QueueFullError: the site's limit on jobs in the queue is reached; submit again later.
        SubmissionRejectedError: Slurm refused; the sentence is Slurm's own. After mending the
            cause the same attempt can be submitted again.
        TransportError: the outcome stayed unknown; calling again is safe.
    """
    return await _Submitting(transport, submission, settle_s).run(script)


async def find_submitted(transport: Transport, submission: Submission) -> ArrayJob | None:
    """Return an array that is known to have been submitted; None where that is not certain.

    Raises:
        TransportError: the connection failed.
    """
    intent = Intent.read(await transport.get_bytes(submission.intent))
    if intent is None or intent.job_id is None:
        return None
    return _job(submission, SubmittedId(intent.job_id, intent.cluster), adopted=True)


async def cancel(transport: Transport, job: ArrayJob, ranks: Iterable[int] | None = None) -> None:
    """Cancel the elements of some ranks, or all of an array; what has ended is left as it is.

    Raises:
        TransportError: it is not known whether the cancel arrived.
    """
    if ranks is None:
        command = scancel_command(job.name, job.job_id, job.cluster)
        await run_checked(transport, command, f"Cancelling {job.name}")
        return
    indices = {job.index(rank) for rank in ranks}
    await cancel_elements(transport, job.job_id, indices, name=job.name, cluster=job.cluster)


async def find_array(transport: Transport, name: str) -> SubmittedId | None:
    """Look a job name up in squeue and, where it answers, in sacct.

    Records that a refused submission left behind are not taken for a job. Of several arrays with
    the name the oldest is kept, and the others are cancelled.

    Raises:
        TransportError: squeue did not answer, so nothing is known.
    """
    found = _arrays(await jobs_named(transport, name), name)
    for double in found[1:]:
        await run_checked(transport, scancel_command(name, double), "Cancelling")
    if not found:
        # Without accounts, or while they are down, squeue's word is enough: it remembers ended jobs
        # for MinJobAge, five minutes by default.
        accounts = await transport.run(sacct_command(name=name), idempotent=True)
        if accounts.ok:
            found = _arrays(parse_sacct(accounts.stdout), name)
    return SubmittedId(found[0]) if found else None


def _arrays(rows: Iterable[Row], name: str) -> list[str]:
    real = {
        row.array_id for row in rows if row.name == name and row.state is not ShardState.REJECTED
    }
    return sorted(real, key=int)


@dataclass(slots=True)
class _Submitting:
    transport: Transport
    submission: Submission
    settle_s: float

    async def run(self, script: str) -> ArrayJob:
        one = self.submission
        intent = Intent(
            name=one.job_name,
            tasks=len(one.ranks),
            first_rank=one.first_rank,
            per_job=one.per_job,
        )
        fresh = await self.transport.create_bytes(one.intent, intent.to_bytes())
        if not fresh:
            earlier = Intent.read(await self.transport.get_bytes(one.intent))
            if earlier is not None and earlier.job_id is not None:
                return _job(one, SubmittedId(earlier.job_id, earlier.cluster), adopted=True)
            fresh = earlier is not None and earlier.rejected is not None
        found = await (
            find_array(self.transport, one.job_name) if fresh else self._find_patiently()
        )
        if found is None:
            await self.transport.put_bytes(one.script, script.encode())
            return await self._submit(intent)
        await self._note(intent, job_id=found.job_id)
        return _job(one, found, adopted=True)

    async def _submit(self, intent: Intent) -> ArrayJob:
        problem = ""
        for _ in range(TRIES):
            try:
                reply = await self.transport.run(sbatch_command(self.submission.script))
            except TransportError as error:
                problem = str(error)
            else:
                accepted = parse_parsable(reply.stdout)
                if accepted is not None:
                    # Only this process knows the id until it is written down, and where nobody
                    # keeps accounts Slurm may forget the job while the cluster is out of reach.
                    outcome = {"job_id": accepted.job_id, "cluster": accepted.cluster}
                    note = functools.partial(self._note, intent, **outcome)
                    await patiently(note, log.warning)
                    return _job(self.submission, accepted, adopted=False)
                refusal = rejection(reply.stderr)
                if reply.exit_status == COMMAND_NOT_FOUND:
                    refusal = "sbatch is not on the PATH of the login node"
                if refusal is not None:
                    await self._note(intent, rejected=refusal)
                    full = queue_is_full(refusal)
                    error_class = QueueFullError if full else SubmissionRejectedError
                    raise error_class(f"Slurm refused the job: {refusal}.")
                problem = " ".join(reply.stderr.split()) or f"exit status {reply.exit_status}"
            found = await self._find_patiently()
            if found is not None:
                await self._note(intent, job_id=found.job_id)
                return _job(self.submission, found, adopted=True)
        raise TransportError(
            f"sbatch gave no clear answer {TRIES} times and no job {intent.name} is known: "
            f"{problem}"
        )

    async def _find_patiently(self) -> SubmittedId | None:
        name = self.submission.job_name
        found = await find_array(self.transport, name)
        if found is None:
            await asyncio.sleep(self.settle_s)
            found = await find_array(self.transport, name)
        return found

    async def _note(self, intent: Intent, **outcome: str | None) -> None:
        content = intent.model_copy(update=outcome).to_bytes()
        await self.transport.put_bytes(self.submission.intent, content)


def _job(submission: Submission, found: SubmittedId, *, adopted: bool) -> ArrayJob:
    return ArrayJob(
        job_id=found.job_id,
        cluster=found.cluster,
        name=submission.job_name,
        attempt=submission.attempt,
        first_rank=submission.first_rank,
        adopted=adopted,
        per_job=submission.per_job,
    )
