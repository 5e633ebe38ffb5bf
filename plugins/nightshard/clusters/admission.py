"""Letting arrays into a queue whose length the site limits, one after the other."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from nightshard.clusters.commands import squeue_command
from nightshard.clusters.errors import QueueFullError, SubmissionRejectedError
from nightshard.clusters.patience import Tell, patiently
from nightshard.clusters.slurm import parse_squeue
from nightshard.clusters.submission import Submission
from nightshard.clusters.submit import SETTLE_S, ArrayJob, find_submitted, submit_array
from nightshard.clusters.transport import Transport, run_checked

Connect = Callable[[], AbstractAsyncContextManager[Transport]]

WAIT_S = 60.0
"""Pause between two looks at a full queue."""


class Admission:
    """The door of one cluster's queue in this process.

    Several processes may stand at the same door: the intent of each submission keeps them from
    submitting it twice, and Slurm's own refusal keeps the limit.

    Args:
        connect: opens or lends the connection.
        max_submitted: the site's limit on a user's jobs in the queue; None where it has none.
        wait_s: pause between two looks at a full queue.
        settle_s: see :func:`nightshard.clusters.submit.submit_array`.
    """

    def __init__(
        self,
        connect: Connect,
        max_submitted: int | None = None,
        wait_s: float = WAIT_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._connect = connect
        self._max_submitted = max_submitted
        self._wait_s = wait_s
        self._settle_s = settle_s
        self._turn = asyncio.Lock()
        self._known: dict[str, ArrayJob] = {}

    async def submit(self, submission: Submission, script: str, tell: Tell) -> ArrayJob:
        """Submit an array as soon as there is room, or return it where it was submitted before.

        Raises:
            SubmissionRejectedError: Slurm refuses it for another reason than the limit, or the
                limit is below this array alone.
            LoginError: the login can never work as it is.
        """
        async with self._turn:
            while True:
                job = await patiently(lambda: self._try(submission, script), tell)
                if job is not None:
                    return job
                tell("waiting to be submitted: the queue holds as many jobs as the site allows")
                await asyncio.sleep(self._wait_s)

    async def submit_now(self, submission: Submission, script: str) -> ArrayJob | None:
        """Submit an array if there is room; None where there is none.

        Raises:
            SubmissionRejectedError: Slurm refuses it for another reason than the limit.
            LoginError: no connection can be made.
            TransportError: the outcome stayed unknown; calling again is safe.
        """
        async with self._turn:
            return await self._try(submission, script)

    async def find(self, submission: Submission) -> ArrayJob | None:
        """Return an array that is known to have been submitted; None where that is not certain.

        Raises:
            TransportError: the connection failed.
        """
        name = submission.job_name
        if name not in self._known:
            async with self._connect() as transport:
                job = await find_submitted(transport, submission)
            if job is None:
                return None
            self._known[name] = job
        return self._known[name]

    async def _try(self, submission: Submission, script: str) -> ArrayJob | None:
        found = await self.find(submission)
        if found is not None:
            return found
        async with self._connect() as transport:
            if not await self._has_room(transport, submission.elements):
                return None
            try:
                job = await submit_array(transport, submission, script, settle_s=self._settle_s)
            except QueueFullError as error:
                if await self._held(transport):
                    return None
                raise SubmissionRejectedError(
                    f"{error} With no other job in the queue, an array of "
                    f"{submission.elements:,} is more than the site takes at once; set "
                    "slurm.max_submitted in the profile and start the run anew."
                ) from None
        self._known[submission.job_name] = job
        return job

    async def _has_room(self, transport: Transport, elements: int) -> bool:
        if self._max_submitted is None:
            return True
        return await self._held(transport) + elements <= self._max_submitted

    async def _held(self, transport: Transport) -> int:
        """Count this user's jobs in the queue and on nodes."""
        listed = await run_checked(transport, squeue_command(), "squeue")
        return sum(not row.state.ended for row in parse_squeue(listed))
