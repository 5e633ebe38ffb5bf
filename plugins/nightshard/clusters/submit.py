"""Submitting an array exactly once in effect, and cancelling it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nightshard.clusters.documents import Intent
from nightshard.clusters.errors import SubmissionRejectedError, TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.slurm import (
    Row,
    ShardState,
    SubmittedId,
    parse_parsable,
    parse_sacct,
    parse_squeue,
    rejection,
    sacct_command,
    sbatch_command,
    scancel_command,
    squeue_command,
)
from nightshard.clusters.transport import COMMAND_NOT_FOUND, Transport, run_checked

SETTLE_S = 15.0
"""How long a submission whose reply was lost may take to show up in a listing."""

CANCEL_BATCH = 500
TRIES = 3


@dataclass(frozen=True, slots=True)
class ArrayJob:
    """One submitted array.

    Attributes:
        job_id: id of the array.
        cluster: its cluster on federated sites, else None.
        name: job name; with the id it stays unmistakable even where ids recycle.
        attempt: attempt of the run, 1 for the first.
        adopted: it had been submitted before and was found again.
    """

    job_id: str
    cluster: str | None
    name: str
    attempt: int
    adopted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ArrayJob":
        """Build from :meth:`to_dict`'s form."""
        return cls(**value)


async def submit_array(
    transport: Transport,
    layout: RunLayout,
    script: str,
    num_tasks: int,
    attempt: int = 1,
    *,
    rank: int | None = None,
    settle_s: float = SETTLE_S,
) -> ArrayJob:
    """Submit a run's array once, however often this is called and whatever reply gets lost.

    An intent file, created exclusively, comes first; the job name is the key. If an intent is there
    already, or sbatch's reply leaves open whether the job was accepted, the name is looked up in
    squeue and sacct, again after ``settle_s``, and what is found is adopted. The worker's exclusive
    claim is the backstop behind this.

    Args:
        transport: connection to the login node.
        layout: the run, staged.
        script: the batch script, see :func:`nightshard.clusters.script.render_script`.
        num_tasks: number of array elements.
        attempt: attempt of the run; another attempt is another submission.
        rank: the only shard of this attempt; by default all of them.
        settle_s: how long a lost submission may take to show up.

    Raises:
        SubmissionRejectedError: Slurm refused; the sentence is Slurm's own. After mending the
            cause the same attempt can be submitted again.
        TransportError: the outcome stayed unknown; calling again is safe.
    """
    submission = _Submission(transport, layout, attempt, num_tasks, rank, settle_s)
    return await submission.run(script)


async def cancel(transport: Transport, job: ArrayJob, ranks: Iterable[int] | None = None) -> None:
    """Cancel elements of an array, or all of it; what has ended is left as it is.

    Raises:
        TransportError: it is not known whether the cancel arrived.
    """
    chosen: Sequence[int] | None = None if ranks is None else sorted(set(ranks))
    batches: list[Sequence[int] | None] = [None]
    if chosen is not None:
        batches = [chosen[at : at + CANCEL_BATCH] for at in range(0, len(chosen), CANCEL_BATCH)]
    for batch in batches:
        command = scancel_command(job.job_id, batch, name=job.name, cluster=job.cluster)
        await run_checked(transport, command, f"Cancelling {job.name}")


async def find_array(transport: Transport, name: str) -> SubmittedId | None:
    """Look a job name up in squeue and, where it answers, in sacct.

    Records that a refused submission left behind are not taken for a job.

    Raises:
        TransportError: squeue did not answer, so nothing is known.
    """
    listed = await transport.run(squeue_command(name=name), idempotent=True)
    if not listed.ok:
        raise TransportError(f"squeue did not answer: {' '.join(listed.stderr.split())}")
    found = _newest_array(parse_squeue(listed.stdout), name)
    if found is None:
        # Without accounts, or while they are down, squeue's word is enough: it remembers ended jobs
        # for MinJobAge, five minutes by default.
        accounts = await transport.run(sacct_command(name=name), idempotent=True)
        if accounts.ok:
            found = _newest_array(parse_sacct(accounts.stdout), name)
    return SubmittedId(found) if found else None


def _newest_array(rows: Iterable[Row], name: str) -> str | None:
    real = [row for row in rows if row.name == name and row.state is not ShardState.REJECTED]
    return max((row.array_id for row in real), key=int, default=None)


@dataclass(slots=True)
class _Submission:
    transport: Transport
    layout: RunLayout
    attempt: int
    num_tasks: int
    rank: int | None
    settle_s: float

    async def run(self, script: str) -> ArrayJob:
        name = self.layout.job_name(self.attempt, self.rank)
        intent = Intent(name=name, tasks=self.num_tasks)
        path = self.layout.submission(self.attempt, self.rank)
        fresh = await self.transport.create_bytes(path, intent.to_bytes())
        if not fresh:
            earlier = Intent.read(await self.transport.get_bytes(path))
            if earlier is not None and earlier.job_id is not None:
                return self._job(SubmittedId(earlier.job_id, earlier.cluster), adopted=True)
            fresh = earlier is not None and earlier.rejected is not None
        found = await (find_array(self.transport, name) if fresh else self._find_patiently(name))
        if found is None:
            await self.transport.put_bytes(
                self.layout.script(self.attempt, self.rank), script.encode()
            )
            return await self._submit(intent)
        await self._note(intent, job_id=found.job_id)
        return self._job(found, adopted=True)

    async def _submit(self, intent: Intent) -> ArrayJob:
        problem = ""
        for _ in range(TRIES):
            try:
                reply = await self.transport.run(
                    sbatch_command(self.layout.script(self.attempt, self.rank))
                )
            except TransportError as error:
                problem = str(error)
            else:
                accepted = parse_parsable(reply.stdout)
                if accepted is not None:
                    await self._note(intent, job_id=accepted.job_id, cluster=accepted.cluster)
                    return self._job(accepted, adopted=False)
                refusal = rejection(reply.stderr)
                if reply.exit_status == COMMAND_NOT_FOUND:
                    refusal = "sbatch is not on the PATH of the login node"
                if refusal is not None:
                    await self._note(intent, rejected=refusal)
                    raise SubmissionRejectedError(f"Slurm refused the job: {refusal}.")
                problem = " ".join(reply.stderr.split()) or f"exit status {reply.exit_status}"
            found = await self._find_patiently(intent.name)
            if found is not None:
                await self._note(intent, job_id=found.job_id)
                return self._job(found, adopted=True)
        raise TransportError(
            f"sbatch gave no clear answer {TRIES} times and no job {intent.name} is known: "
            f"{problem}"
        )

    async def _find_patiently(self, name: str) -> SubmittedId | None:
        found = await find_array(self.transport, name)
        if found is None:
            await asyncio.sleep(self.settle_s)
            found = await find_array(self.transport, name)
        return found

    async def _note(self, intent: Intent, **outcome: str | None) -> None:
        path = self.layout.submission(self.attempt, self.rank)
        await self.transport.put_bytes(path, intent.model_copy(update=outcome).to_bytes())

    def _job(self, found: SubmittedId, *, adopted: bool) -> ArrayJob:
        return ArrayJob(
            job_id=found.job_id,
            cluster=found.cluster,
            name=self.layout.job_name(self.attempt, self.rank),
            attempt=self.attempt,
            adopted=adopted,
        )
