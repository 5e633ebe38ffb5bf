"""Slurm in memory, as it was measured: ids, states, purging, accounts."""

import asyncio
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from support.simulation.world import World

from nightshard.clusters.slurm import expand_indices

KILL_WAIT_S = 30.0
ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}
)


class RunningWorker(Protocol):
    """A process on a node."""

    def signal(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(eq=False, slots=True)
class Element:
    """One array element as slurmctld knows it."""

    array_id: int
    index: int | None
    name: str
    options: dict[str, str]
    script: str
    submitted: float
    ours: bool
    raw_id: int
    word: str = "PENDING"
    reason: str = "Priority"
    node: str | None = None
    started: float | None = None
    ended: float | None = None
    code: int = 0
    signal: int = 0
    restarts: int = 0
    not_before: float = 0.0
    scancelled: bool = False
    cancelled_by: str = ""
    ending: bool = False
    purged: bool = False
    listed_at: float = 0.0
    worker: RunningWorker | None = None
    accounts: list[tuple[float, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.array_id) if self.index is None else f"{self.array_id}_{self.index}"

    @property
    def live(self) -> bool:
        return self.word not in ENDED


@dataclass(frozen=True, slots=True)
class Submitted:
    """An array that was accepted.

    Attributes:
        who: the process that submitted it.
        known: arrays of the same name that squeue listed at that time.
        told: the process had been told of one before.
    """

    name: str
    array_id: int
    who: str
    known: set[int]
    told: bool


@dataclass(slots=True)
class Node:
    """One node."""

    slots: int
    up: bool = True


class Queue:
    """slurmctld, its nodes and its database.

    Args:
        world: surroundings.
        start_worker: starts the batch script of an element; it calls :meth:`exited` at its end.
    """

    def __init__(self, world: World, start_worker: Callable[[Element], RunningWorker]) -> None:
        self.world = world
        self.elements: list[Element] = []
        self.nodes = {name: Node(slots) for name, slots in world.scenario.site.slots.items()}
        self._start_worker = start_worker
        self._late = random.Random(f"listing {world.scenario.seed}")
        self._next = world.scenario.site.first_id
        self.accounts_down: tuple[tuple[float, float], ...] = ()
        self.submissions: list[Submitted] = []

    # What the programs ask.

    @property
    def answers(self) -> bool:
        """Whether slurmctld answers."""
        now = self.world.now
        return not any(a <= now < b for a, b in self.world.scenario.faults.controller_down)

    def submit(
        self, name: str, options: dict[str, str], script: str, who: str, *, ours: bool = True
    ) -> int | str:
        """Accept an array, or return the words of the refusal."""
        indices = expand_indices(options["array"])
        limit = self.world.scenario.site.max_submitted
        held = sum(one.live for one in self.elements)
        if ours and limit is not None and held + len(indices) > limit:
            self.world.inject("queue limit reached")
            return "QOSMaxSubmitJobPerUserLimit"
        if max(indices) >= self.world.scenario.site.max_array_size:
            return "Invalid job array specification"
        known = self._remembered(name)
        told = (who, script) in self.world.acknowledged
        array_id = self._new_id()
        excluded = set(filter(None, options.get("exclude", "").split(",")))
        if excluded >= set(self.nodes):
            self._leave_rejected(array_id, name, options, script)
            return "Requested node configuration is not available"
        for index in indices:
            self.elements.append(
                Element(
                    array_id, index, name, options, script, self.world.now, ours, raw_id=array_id
                )
            )
        # A busy controller, or a site's cache before it, shows a new array late.
        late_s = self._late.uniform(0, self.world.scenario.faults.late_s)
        for one in self.elements[-len(indices) :]:
            one.listed_at = self.world.now + late_s
        self.submissions.append(Submitted(name, array_id, who, known, told))
        self.world.tell(f"slurm accepts {name} as {array_id}, {len(indices)} elements")
        self.world.loop.call_later(self.world.rng.choice([0.5, 2, 40]), self.schedule)
        return array_id

    def reject(self, name: str, options: dict[str, str], script: str) -> None:
        """Refuse an array the way that eats an id and leaves a record."""
        self._leave_rejected(self._new_id(), name, options, script)

    @property
    def free_ids(self) -> int:
        """How many more jobs can have an id."""
        return self.world.scenario.site.last_id - len(self._taken_ids())

    def listed(self) -> list[Element]:
        """Return what squeue shows."""
        now = self.world.now
        return [one for one in self.elements if not one.purged and one.listed_at <= now]

    def cancel(self, chosen: Iterable[Element], who: str) -> None:
        """Cancel elements; what has ended is left alone."""
        for one in chosen:
            if not one.live or one.scancelled:
                continue
            one.scancelled, one.cancelled_by = True, who
            self.world.tell(f"{who} cancels {one.id} of {one.name} in {one.word}")
            if one.word == "PENDING":
                self._end(one, "CANCELLED")
            else:
                self._stop(one, "CANCELLED")

    # What happens on the cluster.

    def schedule(self) -> None:
        """Start what fits."""
        for one in self.elements:
            if one.word != "PENDING" or one.not_before > self.world.now:
                continue
            excluded = one.options.get("exclude", "").split(",")
            for name, node in self.nodes.items():
                busy = sum(other.node == name and other.live for other in self.elements)
                if node.up and busy < node.slots and name not in excluded:
                    self._start(one, name)
                    break
            else:
                one.reason = "Resources"

    def exited(self, one: Element, worker: RunningWorker, code: int, signal: int = 0) -> None:
        """Take the exit of a batch script; an orphan's is of no interest."""
        if one.worker is not worker or one.ending or not one.live:
            return
        word = "COMPLETED" if code == 0 and signal == 0 else "FAILED"
        self._complete(one, word, code, signal)

    def node_down(self, name: str, length_s: float) -> None:
        """Lose a node; its processes go on for a while as orphans."""
        self.nodes[name].up = False
        for one in self.elements:
            if one.node == name and one.word == "RUNNING":
                worker, one.worker = one.worker, None
                if worker is not None:
                    self.world.kinds["orphan process"] += 1
                    orphan_s = self.world.rng.choice([0.0, 5.0, 120.0, 600.0])
                    self.world.loop.call_later(orphan_s, worker.kill)
                self._lose(one, "NODE_FAIL")
        self.world.loop.call_later(length_s, self._node_up, name)

    def preempt(self, one: Element) -> None:
        """Take an element's node away for somebody else's job."""
        if one.word != "RUNNING":
            return
        self._stop(one, "PREEMPTED")

    def time_out(self, one: Element, started: float) -> None:
        """End an element at its time limit."""
        if one.word == "RUNNING" and one.started == started:
            self._stop(one, "TIMEOUT")

    def kill(self, one: Element) -> None:
        """Kill a running element's processes: FAILED, 0:9."""
        if one.word == "RUNNING" and one.worker is not None and not one.ending:
            worker, one.worker = one.worker, None
            worker.kill()
            one.reason = "JobLaunchFailure"
            self._complete(one, "FAILED", 0, 9)

    def out_of_memory(self, one: Element) -> None:
        """Let the kernel kill an element for its memory."""
        if one.word == "RUNNING" and one.worker is not None and not one.ending:
            worker, one.worker = one.worker, None
            worker.kill()
            self._complete(one, "OUT_OF_MEMORY", 0, 125)

    # Steps of a life.

    def _new_id(self) -> int:
        taken = self._taken_ids()
        if self.free_ids <= 0:
            return max(taken) + 1
        while True:
            job_id = self._next
            self._next += 1
            if self._next > self.world.scenario.site.last_id:
                self._next = 1
                self.world.inject("job ids recycled")
            if job_id not in taken:
                return job_id

    def _taken_ids(self) -> set[int]:
        remembered = (one for one in self.elements if not one.purged)
        return {i for one in remembered for i in (one.array_id, one.raw_id)}

    def _remembered(self, name: str) -> set[int]:
        real = (one for one in self.elements if one.index is not None and not one.purged)
        return {one.array_id for one in real if one.name == name}

    def _leave_rejected(
        self, array_id: int, name: str, options: dict[str, str], script: str
    ) -> None:
        one = Element(
            array_id, None, name, options, script, self.world.now, ours=True, raw_id=array_id
        )
        one.word, one.reason, one.ended = "FAILED", "BadConstraints", self.world.now
        self.elements.append(one)
        self._account(one)
        self._purge_later(one)

    def _start(self, one: Element, node: str) -> None:
        last = all(
            other is one or other.word != "PENDING"
            for other in self.elements
            if other.array_id == one.array_id and other.name == one.name
        )
        if not last:
            one.raw_id = self._new_id()
        one.word, one.reason, one.node, one.started = "RUNNING", "None", node, self.world.now
        self.world.tell(f"slurm starts {one.id} of {one.name} on {node}")
        self._account(one)
        limit = 60.0 * int(one.options["time"])
        rng = self.world.rng
        self.world.loop.call_later(limit - rng.uniform(60, 69), self._warn, one, one.started)
        self.world.loop.call_later(limit + rng.uniform(11, 27), self.time_out, one, one.started)
        one.worker = self._start_worker(one)

    def _warn(self, one: Element, started: float) -> None:
        if one.word == "RUNNING" and one.started == started and one.worker is not None:
            one.worker.signal()

    def _stop(self, one: Element, word: str) -> None:
        """Signal the batch script and kill it after KillWait."""
        if one.ending:
            return
        one.ending = True
        worker = one.worker
        one.word = "COMPLETING"
        if worker is not None:
            worker.signal()

        async def finish() -> None:
            await asyncio.sleep(self.world.rng.uniform(1, KILL_WAIT_S))
            if worker is not None:
                worker.kill()
            one.worker = None
            one.ending = False
            if word == "CANCELLED":
                self._end(one, word)
            else:
                self._lose(one, word)

        self.world.spawn(finish())

    def _lose(self, one: Element, word: str) -> None:
        if one.options["requeue"] == "yes" and word != "TIMEOUT":
            self.world.tell(f"slurm puts {one.id} back: {word}")
            one.word, one.reason, one.node, one.started = "PENDING", "BeginTime", None, None
            one.restarts += 1
            one.not_before = self.world.now + 121
            self._account(one)
            self.world.loop.call_later(122, self.schedule)
        else:
            one.reason = {"NODE_FAIL": "NodeDown", "TIMEOUT": "TimeLimit"}.get(word, "None")
            self._end(one, word)
        self.schedule()

    def _complete(self, one: Element, word: str, code: int, signal: int) -> None:
        one.ending, one.word = True, "COMPLETING"

        async def epilogue() -> None:
            await asyncio.sleep(self.world.rng.choice([0.0, 0.1, 3.0]))
            one.ending = False
            self._end(one, word, code, signal)

        self.world.spawn(epilogue())

    def _end(self, one: Element, word: str, code: int = 0, signal: int = 0) -> None:
        one.word, one.code, one.signal, one.ended = word, code, signal, self.world.now
        if word == "FAILED" and code:
            one.reason = "NonZeroExitCode"
        self.world.tell(f"slurm ends {one.id} of {one.name}: {word} {code}:{signal}")
        self._account(one)
        self._purge_later(one)
        self.schedule()

    def _purge_later(self, one: Element) -> None:
        def purge() -> None:
            one.purged = True

        self.world.loop.call_later(self.world.scenario.site.min_job_age_s, purge)

    def _node_up(self, name: str) -> None:
        self.nodes[name].up = True
        self.schedule()

    def _account(self, one: Element) -> None:
        site = self.world.scenario.site
        lag = self.world.rng.uniform(0, 90) if site.accounts == "lagging" else 0.2
        elapsed = 0 if one.started is None else int((one.ended or self.world.now) - one.started)
        start = "Unknown" if one.started is None else self.world.cluster_time(one.started)
        word = f"{one.word} by 1000" if one.word == "CANCELLED" else one.word
        line = "|".join(
            [
                one.id,
                str(one.raw_id),
                word,
                f"{one.code}:{one.signal}",
                one.node or "None assigned",
                str(elapsed),
                start,
                one.name,
            ]
        )
        one.accounts.append((self.world.now + lag, line))


def parse_directives(script: str) -> dict[str, str]:
    """Read the ``#SBATCH`` lines of a batch script as sbatch does."""
    options = {"requeue": "no"}
    for match in re.finditer(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE):
        name, value = match[1], match[2] or ""
        if name in {"requeue", "no-requeue"}:
            options["requeue"] = "yes" if name == "requeue" else "no"
        else:
            options[name] = value
    return options
