"""The pages' connections to clusters: one each, kept while somebody looks."""

import asyncio
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from nightshard.clusters.errors import LoginError, TransportError
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.shared import shared
from nightshard.clusters.transport import Transport
from nightshard.web.looking import Found, look
from nightshard.web.runs import Run, RunLook

IDLE_S = 60.0
"""How long a connection is kept that nobody uses."""

FRESH_S = 3.0
"""How long one look serves everybody who asks about the same run."""


@dataclass(slots=True)
class _Look:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    found: Found | None = None
    until: float = 0.0


class Connections:
    """Login nodes as the pages use them.

    However many people look, a run is asked about once in ``FRESH_S``, over one connection.

    Args:
        connect: makes a transport.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        connect: Callable[[ClusterProfile], Transport],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._looks: dict[Hashable, _Look] = {}

    def to(self, profile: ClusterProfile) -> AbstractAsyncContextManager[Transport]:
        """Lend the connection to a cluster."""
        return shared(profile.name, lambda: self._connect(profile), idle_s=IDLE_S)

    async def look(self, run: Run, rank: int | None = None) -> RunLook:
        """Look at a run, or at one shard of it; a cluster that is silent is told as such."""
        layout, profile = run.layout, run.profile
        if layout is None or profile is None:
            return RunLook(run)
        now = self._clock()
        for key in [key for key, one in self._looks.items() if one.until < now]:
            if not self._looks[key].lock.locked():
                del self._looks[key]
        slot = self._looks.setdefault((profile.name, layout.run, rank), _Look())
        async with slot.lock:
            if slot.found is None or slot.until < self._clock():
                try:
                    async with self.to(profile) as transport:
                        slot.found = await look(transport, layout, rank)
                except (TransportError, LoginError) as error:
                    return RunLook(run, complaint=f"{profile.title}: {error}")
                slot.until = self._clock() + FRESH_S
            return RunLook.of(run, slot.found)
