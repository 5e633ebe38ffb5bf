"""One poller a cluster: all watched shards of all runs share one connection and one question."""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nightshard.clusters.errors import LoginError, TransportError
from nightshard.clusters.pacing import PollBounds, next_interval, remaining_s
from nightshard.clusters.poll import Accounts, PollAnswer, parse_poll, poll_script, shard_files
from nightshard.clusters.slurm import Row, ShardState
from nightshard.clusters.status import (
    EXPECTED_START,
    Evidence,
    Grace,
    ShardStatus,
    WatchedShard,
    judge,
)
from nightshard.clusters.transport import Transport

log = logging.getLogger(__name__)

GATHER_S = 0.05
"""Shards of one run begin to be watched together; the first question waits for the others."""

JITTER = 0.1
DISABLED_FOR_S = 600.0
"""How long a cluster's word holds that it keeps no accounts."""


@dataclass(eq=False, slots=True)
class _Watch:
    shard: WatchedShard
    items: "asyncio.Queue[ShardStatus | Exception]" = field(default_factory=asyncio.Queue)
    last: ShardStatus | None = None
    missing_since: float | None = None
    ended_since: float | None = None
    running_since: float | None = None


class ClusterPoller:
    """Asks one cluster about all shards that are being watched.

    Args:
        connect: opens or lends the connection; it is given back while nothing is watched.
        bounds: how often the login node may be asked.
        accounting: the profile's ``slurm.accounting``.
        clock: monotonic seconds. Clocks of other hosts are never compared with it.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Transport]],
        bounds: PollBounds | None = None,
        accounting: Literal["auto", "yes", "no"] = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self.bounds = bounds or PollBounds()
        self._accounting = accounting
        self._clock = clock
        self._watches: set[_Watch] = set()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._changed_at = clock()
        self._disabled_until = float("-inf")
        self._down = False
        self._failures = 0
        self.polls = 0

    async def watch(self, shard: WatchedShard) -> AsyncIterator[ShardStatus]:
        """Yield a shard's status, now and at each change; the last one is final.

        A connection that fails is not raised: it shows as a status with a message, and the poller
        goes on with growing intervals.

        Raises:
            UserError: the connection can never work as it is, for example because the host key
                changed.
        """
        watch = _Watch(shard)
        self._watches.add(watch)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="nightshard-poller")
        try:
            while True:
                item = await watch.items.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.final:
                    return
        finally:
            self._watches.discard(watch)
            self._wake.set()

    async def _run(self) -> None:
        held = AsyncExitStack()
        try:
            transport = await held.enter_async_context(self._connect())
            while self._watches:
                self._wake.clear()
                await asyncio.sleep(GATHER_S)
                started = self._clock()
                await self._poll(transport)
                if not self._watches:
                    # Whoever waited for the last shard may begin to watch another at once.
                    await asyncio.sleep(0)
                    continue
                await self._pause(started)
        except Exception as error:
            log.exception("The poller stopped")
            self._give_up(error)
        finally:
            # No await between this and the end: a new watch must find either a poller that will
            # still look at it, or none.
            self._task = None
            closing = asyncio.ensure_future(held.aclose())
            closing.add_done_callback(_consume)

    async def _pause(self, started: float) -> None:
        now = self._clock()
        statuses = [watch.last for watch in self._watches if watch.last is not None]
        running = [w.running_since for w in self._watches if w.running_since is not None]
        interval = next_interval(
            self.bounds,
            now - self._changed_at,
            remaining_s(statuses, now - min(running, default=now)),
            self._failures,
        )
        interval *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 (spreads load, no secret)
        # A newcomer may cut a long pause short, but never below the floor or a back-off.
        shortest = interval if self._failures else min(interval, self.bounds.floor_s)
        await asyncio.sleep(max(0.0, started + shortest - self._clock() - GATHER_S))
        try:
            async with asyncio.timeout(max(0.0, started + interval - self._clock() - GATHER_S)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _poll(self, transport: Transport) -> None:
        watches = list(self._watches)
        if not watches:
            return
        nonce = secrets.token_hex(8)
        script = poll_script(
            (watch.shard for watch in watches), nonce, accounts_of=self._accounts_of(watches)
        )
        self.polls += 1
        try:
            result = await transport.run(["sh", "-s"], stdin=script, idempotent=True)
            answer = parse_poll(result.stdout, nonce)
        except LoginError as error:
            if not error.failure.passing:
                self._give_up(error)
                return
            self._fail(watches, str(error))
        except TransportError as error:
            self._fail(watches, str(error))
        else:
            self._learn_of_accounts(answer.accounts_state)
            if not answer.queue_ok:
                self._fail(watches, f"Slurm does not answer: {answer.complaint}", answer)
                return
            self._failures = 0
            for watch in watches:
                self._look(watch, answer)

    def _accounts_of(self, watches: list[_Watch]) -> list[str]:
        if not self._accounts_possible():
            return []
        # squeue shows live and fresh jobs; only what it no longer lists is worth a question to the
        # database, and what has not been seen yet may be such a job.
        return sorted(
            {w.shard.job.job_id for w in watches if w.last is None or w.missing_since is not None}
        )

    def _accounts_possible(self) -> bool:
        return self._accounting != "no" and self._clock() >= self._disabled_until

    def _learn_of_accounts(self, state: Accounts) -> None:
        self._down = state is Accounts.DOWN
        if state is Accounts.DISABLED:
            self._disabled_until = self._clock() + DISABLED_FOR_S

    def _look(self, watch: _Watch, answer: PollAnswer) -> None:
        now = self._clock()
        element = watch.shard.element
        queue = _ours(answer.queue.get(element), watch.shard)
        accounts = _ours(answer.accounts.get(element), watch.shard)
        ended = next((row for row in (queue, accounts) if row and row.state.ended), None)
        if queue is not None or ended is not None:
            watch.missing_since = None
        elif watch.missing_since is None:
            watch.missing_since = now
        if ended is not None and watch.ended_since is None:
            watch.ended_since = now
        files = {what: answer.files.get(path) for what, path in shard_files(watch.shard).items()}
        seen = Evidence(
            queue=queue,
            accounts=accounts,
            missing_s=0.0 if watch.missing_since is None else now - watch.missing_since,
            ended_s=0.0 if watch.ended_since is None else now - watch.ended_since,
            accounts_answer=self._accounts_possible()
            and (self._accounting == "yes" or not self._down),
            **files,
        )
        grace = Grace(self.bounds.grace_s, self.bounds.manifest_grace_s)
        self._tell(watch, judge(watch.shard, seen, grace))

    def _fail(self, watches: list[_Watch], problem: str, answer: PollAnswer | None = None) -> None:
        self._failures += 1
        for watch in watches:
            known = watch.last or ShardStatus(ShardState.UNKNOWN, final=False, message="")
            if answer is not None:
                accounts = _ours(answer.accounts.get(watch.shard.element), watch.shard)
                if accounts is not None and accounts.state.ended:
                    self._look(watch, answer)
                    continue
            message = f"{problem.rstrip('.')}; the job is not affected, asking again"
            self._tell(watch, replace(known, message=message))

    def _tell(self, watch: _Watch, status: ShardStatus) -> None:
        before, watch.last = watch.last, status
        now = self._clock()
        if before is None or before.state is not status.state or status.final:
            self._changed_at = now
        if status.state is ShardState.RUNNING and watch.running_since is None:
            watch.running_since = now
        if before is None or _gist(before) != _gist(status):
            watch.items.put_nowait(status)
        if status.final:
            self._watches.discard(watch)

    def _give_up(self, error: Exception) -> None:
        for watch in self._watches:
            watch.items.put_nowait(error)
        self._watches.clear()


def _ours(row: Row | None, shard: WatchedShard) -> Row | None:
    """Refuse a row of another job that got a recycled id."""
    return row if row is not None and row.name == shard.job.name else None


def _gist(status: ShardStatus) -> tuple[Any, ...]:
    """Return what makes a difference to a reader: no time stamps, no wandering expected start."""
    progress = status.progress
    return (
        status.state,
        status.final,
        status.overdue,
        status.reason,
        status.node,
        status.exit_code,
        progress and (progress.phase, progress.done, progress.errors, progress.output_tokens),
        status.message.partition(EXPECTED_START)[0],
    )


def _consume(closing: "asyncio.Future[None]") -> None:
    if not closing.cancelled() and closing.exception() is not None:
        log.debug("Hanging up failed: %s", closing.exception())
