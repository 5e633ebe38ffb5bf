"""What everything in a simulation shares: clock, chance, files, trace, counts."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from support.simulation.disk import Disk
from support.simulation.scenario import Scenario

NIGHT = datetime(2026, 11, 24, 22, tzinfo=UTC)
NODES = "nodes"
"""All compute nodes look at the file system as one host."""


class World:
    """The cluster's surroundings.

    Args:
        scenario: what the seed stands for.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(f"world {scenario.seed}")
        self.loop = asyncio.get_running_loop()
        self.disk = Disk(self.loop.time, self._lag)
        self.trace: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.faults_found: list[str] = []
        self.acknowledged: set[tuple[str, str]] = set()
        self._alive: dict[asyncio.Task[Any], None] = {}

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.loop.time()

    @property
    def calm(self) -> bool:
        """Whether nothing is broken on purpose any more."""
        return self.now >= self.scenario.calm_at

    def tell(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now:10.3f} {text}")

    def inject(self, kind: str, detail: str = "") -> None:
        """Note that something was broken on purpose."""
        self.kinds[kind] += 1
        self.tell(f"! {kind}{f': {detail}' if detail else ''}")

    def violation(self, text: str) -> None:
        """Note that something happened that never may."""
        self.tell(f"VIOLATION {text}")
        self.faults_found.append(text)

    def spawn(self, action: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start something that goes on whoever waits for it."""
        task = self.loop.create_task(action)
        self._alive[task] = None
        task.add_done_callback(lambda done: self._alive.pop(done, None))
        return task

    def cluster_time(self, at: float) -> str:
        """Write a time as the cluster's own clock shows it."""
        shown = NIGHT + timedelta(seconds=at + self.scenario.site.clock_offset_s)
        return shown.strftime("%Y-%m-%dT%H:%M:%S")

    def digest(self) -> str:
        """Return a hash of the trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def _lag(self) -> float:
        longest = self.scenario.site.lag_s
        return self.rng.uniform(0, longest) if longest else 0.0
