"""One poller a cluster: all watched shards of all runs share one connection and one question."""

import asyncio
import functools
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nightshard.clusters.errors import LoginError, TransportError
from nightshard.clusters.pacing import (
    BACKOFF_CEILING_S,
    PollBounds,
    backoff,
    next_interval,
    pause_after,
    remaining_s,
)
from nightshard.clusters.poll import (
    Accounts,
    Element,
    Look,
    PollAnswer,
    element_of,
    parse_poll,
    poll_script,
)
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

DISABLED_FOR_S = 600.0
"""How long a cluster's word holds that it keeps no accounts."""

ACCOUNTS_FIRST_S = 30.0
ACCOUNTS_CEILING_S = 600.0
"""Back-off of the questions to a database that is down: each may hang for seconds."""

PROGRESS_PER_POLL = 1000
"""So many running shards' progress is read in one poll; where there are more they take turns."""

LARGE_ANSWER = 100_000
LOOKS_AT_ONCE = 200
"""Above these, in characters and in shards, others in the event loop get their turn in between."""


@dataclass(eq=False, slots=True)
class _Watch:
    shard: WatchedShard
    element: Element
    items: "asyncio.Queue[ShardStatus | Exception]" = field(default_factory=asyncio.Queue)
    last: ShardStatus | None = None
    row: Row | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    looked_at: bool = False
    progress_turn: int = 0
    missing_since: float | None = None
    ended_since: float | None = None
    running_since: float | None = None
    ends_at: float | None = None


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
        self._accounts_disabled_until = float("-inf")
        self._accounts_again_at = float("-inf")
        self._accounts_failures = 0
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
        watch = _Watch(shard, element_of(shard))
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
            if not self._watches:
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
        ends = [watch.ends_at for watch in self._watches if watch.ends_at is not None]
        remaining = max(0.0, min(ends) - now) if ends else None
        quiet = now - self._changed_at
        interval = next_interval(self.bounds, quiet, remaining, self._failures)
        took = now - started
        pause = pause_after(interval, took, random.random()) - GATHER_S  # noqa: S311
        # A newcomer may cut a long pause short, but never below the floor or a back-off.
        shortest = pause
        if not self._failures:
            shortest = min(pause, pause_after(self.bounds.floor_s, took, 0.0) - GATHER_S)
        await asyncio.sleep(max(0.0, shortest))
        try:
            async with asyncio.timeout(max(0.0, pause - shortest)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _poll(self, transport: Transport) -> None:
        watches = list(self._watches)
        if not watches:
            return
        nonce = secrets.token_hex(8)
        self.polls += 1
        names = {watch.shard.job.name for watch in watches}
        accounts = self._accounts_possible() and self._clock() >= self._accounts_again_at
        script = poll_script(self._looks(watches), nonce, accounts=accounts)
        try:
            result = await transport.run(["sh", "-s"], stdin=script, idempotent=True)
            read = functools.partial(parse_poll, result.stdout, nonce, names)
            large = len(result.stdout) > LARGE_ANSWER
            answer = await asyncio.to_thread(read) if large else read()
        except LoginError as error:
            if not error.failure.passing:
                self._give_up(error)
                return
            self._fail(watches, str(error))
        except TransportError as error:
            self._fail(watches, str(error))
        else:
            await self._take(watches, answer)

    async def _take(self, watches: list[_Watch], answer: PollAnswer) -> None:
        self._learn_of_accounts(answer.accounts_state)
        silent: dict[str, list[_Watch]] = {cluster: [] for cluster in answer.complaints}
        for number, watch in enumerate(watches, start=1):
            if watch.element[0] in silent and not _ended_by(answer.accounts, watch):
                silent[watch.element[0]].append(watch)
            else:
                self._look(watch, answer)
            if number % LOOKS_AT_ONCE == 0:
                await asyncio.sleep(0)
        if len(answer.complaints) < len({watch.element[0] for watch in watches}):
            self._failures = 0
        else:
            self._failures += 1
        for cluster, complaint in answer.complaints.items():
            self._tell_trouble(silent[cluster], f"Slurm does not answer: {complaint}")

    def _looks(self, watches: list[_Watch]) -> Iterator[tuple[WatchedShard, Look]]:
        """Choose how closely to look at each shard; those whose progress is oldest come first."""
        running = 0
        for watch in sorted(watches, key=_turn):
            look = Look.PROGRESS
            if not watch.looked_at:
                look = Look.FIRST
            elif watch.missing_since is not None:
                look = Look.MISSING
            elif watch.last is not None and watch.last.state is ShardState.RUNNING:
                running += 1
                look = Look.PROGRESS if running <= PROGRESS_PER_POLL else Look.QUEUE
            if look is not Look.QUEUE:
                watch.progress_turn = self.polls
            yield watch.shard, look

    def _accounts_possible(self) -> bool:
        return self._accounting != "no" and self._clock() >= self._accounts_disabled_until

    def _learn_of_accounts(self, state: Accounts) -> None:
        now = self._clock()
        match state:
            case Accounts.ANSWERED:
                self._accounts_failures = 0
            case Accounts.DISABLED:
                self._accounts_disabled_until = now + DISABLED_FOR_S
            case Accounts.DOWN:
                self._accounts_failures += 1
                self._accounts_again_at = now + backoff(
                    ACCOUNTS_FIRST_S, self._accounts_failures, ACCOUNTS_CEILING_S
                )

    def _accounts_will_tell(self) -> bool:
        return self._accounts_possible() and (
            self._accounting == "yes" or not self._accounts_failures
        )

    def _look(self, watch: _Watch, answer: PollAnswer) -> None:
        now = self._clock()
        queue = _ours(answer.queue.get(watch.element), watch.shard)
        accounts = _ours(answer.accounts.get(watch.element), watch.shard)
        files = answer.files_of(watch.shard)
        if _unchanged(watch, queue, files, now):
            return
        watch.looked_at, watch.row = True, queue
        watch.files = {**watch.files, **files} if queue and not queue.state.ended else files
        ended = next((row for row in (queue, accounts) if row and row.state.ended), None)
        if queue is not None or ended is not None:
            watch.missing_since = None
        elif watch.missing_since is None:
            watch.missing_since = now
        if ended is not None and watch.ended_since is None:
            watch.ended_since = now
        seen = Evidence(
            queue=queue,
            accounts=accounts,
            missing_s=0.0 if watch.missing_since is None else now - watch.missing_since,
            ended_s=0.0 if watch.ended_since is None else now - watch.ended_since,
            accounts_answer=self._accounts_will_tell(),
            **watch.files,
        )
        grace = Grace(self.bounds.grace_s, self.bounds.manifest_grace_s)
        status = judge(watch.shard, seen, grace)
        if status.state is ShardState.RUNNING and watch.running_since is None:
            watch.running_since = now - (status.elapsed_s or 0)
        running_s = 0.0 if watch.running_since is None else now - watch.running_since
        remaining = remaining_s(status, running_s)
        watch.ends_at = None if remaining is None else now + remaining
        self._tell(watch, status)

    def _fail(self, watches: list[_Watch], problem: str) -> None:
        self._failures += 1
        self._tell_trouble(watches, problem)

    def _tell_trouble(self, watches: list[_Watch], problem: str) -> None:
        again = f"the job is not affected, asking again in {self._words_for_pause()}"
        for watch in watches:
            watch.row = None
            known = watch.last or ShardStatus(ShardState.UNKNOWN, final=False, message="")
            told = f"{problem.rstrip('.')}; {again}"
            self._tell(watch, replace(known, message=told, at_work=False))

    def _words_for_pause(self) -> str:
        interval = next_interval(self.bounds, 0.0, None, self._failures)
        if interval < BACKOFF_CEILING_S:
            return f"{interval:.0f} s"
        return f"{interval / 60:.0f} min and in such pauses until the cluster answers"

    def _tell(self, watch: _Watch, status: ShardStatus) -> None:
        before, watch.last = watch.last, status
        if before is None or before.state is not status.state or status.final:
            self._changed_at = self._clock()
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


def _turn(watch: _Watch) -> tuple[int, str, int]:
    return watch.progress_turn, watch.shard.job.name, watch.shard.rank


def _ended_by(accounts: Mapping[Element, Row], watch: _Watch) -> bool:
    row = _ours(accounts.get(watch.element), watch.shard)
    return row is not None and row.state.ended


def _unchanged(watch: _Watch, queue: Row | None, files: Mapping[str, str], now: float) -> bool:
    """Whether nothing is new of a shard that lives, so that it need not be judged again."""
    before, limit = watch.row, watch.shard.max_job_minutes
    if queue is None or before is None or queue.state.ended:
        return False
    due = watch.ends_at is not None and now >= watch.ends_at
    late = limit is not None and queue.elapsed_s is not None and queue.elapsed_s > 60 * limit
    return (
        not due
        and not late
        and replace(queue, elapsed_s=before.elapsed_s) == before
        and all(watch.files.get(kind) == text for kind, text in files.items())
    )


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
