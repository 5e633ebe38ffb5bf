"""One transport for all who work on the same cluster from one event loop.

A triggerer runs hundreds of triggers in one loop; sshd allows few logins at a time (``MaxStartups``
is 10 by default) and sites count them, so they all share one connection.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable, Hashable

from nightshard.clusters.delegating import DelegatingTransport
from nightshard.clusters.transport import Transport

IDLE_S = 5.0
"""How long a connection outlives its last user, so that work in small steps logs in once."""


class _Entry:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.users = 0
        self.closing: asyncio.Task[None] | None = None


class _Lease(DelegatingTransport):
    """One user's view; hanging up is not this user's to decide."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def target(self) -> Transport:
        return self._transport

    async def close(self) -> None:
        pass


_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Entry]] = (
    weakref.WeakKeyDictionary()
)


@contextlib.asynccontextmanager
async def shared(
    key: Hashable, factory: Callable[[], Transport], *, idle_s: float = IDLE_S
) -> AsyncIterator[Transport]:
    """Lend the one transport of this key in the running event loop.

    It is made by the first user, closed ``idle_s`` seconds after the last one left, and at once
    where the event loop ends before that. ``close`` on what is lent does nothing, since others may
    be at work on it; a connection that broke is made again by the next call.

    Args:
        key: what identifies the cluster and the way to it, for example the connection's name.
        factory: makes the transport; it should connect at its first use only.
        idle_s: seconds.
    """
    entries = _open.setdefault(asyncio.get_running_loop(), {})
    entry = entries.get(key)
    if entry is None:
        entry = entries[key] = _Entry(factory())
    entry.users += 1
    if entry.closing is not None:
        entry.closing.cancel()
        entry.closing = None
    try:
        yield _Lease(entry.transport)
    finally:
        entry.users -= 1
        if entry.users == 0:
            entry.closing = asyncio.create_task(_close_when_idle(entries, key, entry, idle_s))


async def _close_when_idle(
    entries: dict[Hashable, _Entry], key: Hashable, entry: _Entry, idle_s: float
) -> None:
    try:
        await asyncio.sleep(idle_s)
    finally:
        # Also where the event loop ends and cancels this wait; not where a new user did.
        if entry.closing is asyncio.current_task():
            del entries[key]
            await entry.transport.close()
