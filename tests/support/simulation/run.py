"""One seed from beginning to end."""

import asyncio
import contextlib
import gc
import hashlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from support.simulation.checks import BY_HAND, FOREIGN, check_end
from support.simulation.loop import run_virtually
from support.simulation.pilot import Pilot
from support.simulation.queue import Element, Queue, RunningWorker
from support.simulation.scenario import Event, Scenario, draw_scenario
from support.simulation.worker import RunTruth, Worker, manifest_of
from support.simulation.world import NIGHT, World

from nightshard.clusters import following, patience, session
from nightshard.clusters.poller import ClusterPoller

MANY_IDS = 100
SPARE_IDS = 12
HORIZON_S = 40 * 3600.0


@dataclass(frozen=True)
class Result:
    """What a seed came to.

    Attributes:
        problems: what happened that never may; empty is green.
        trace: the whole story, a line an event.
        digest: hash of the trace.
        kinds: how often each kind of fault was injected.
    """

    scenario: Scenario
    problems: list[str]
    trace: list[str]
    digest: str
    kinds: Counter[str]


class _Ordered(dict[Any, None]):
    """A set that keeps its order: hashes of objects differ from run to run."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class _Foreign:
    """A job of the same user that is no concern of ours."""

    def __init__(self, world: World, queue: Queue, element: Element) -> None:
        self._task = world.spawn(self._run(world, queue, element))

    async def _run(self, world: World, queue: Queue, element: Element) -> None:
        await asyncio.sleep(world.rng.uniform(30, 600))
        queue.exited(element, self, 0)

    def signal(self) -> None:
        pass

    def kill(self) -> None:
        self._task.cancel()


def simulate(seed: int) -> Result:
    """Run one seed."""
    scenario = draw_scenario(seed)
    before = random.getstate()
    random.seed(seed)  # the poller's jitter
    # What is left in a cycle would end, and say so to the loop, at a time of its own.
    gc.disable()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return run_virtually(_simulate(scenario, Path(folder)))
    finally:
        gc.enable()
        random.setstate(before)


@contextlib.contextmanager
def _on_virtual_time() -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def poller(*args: Any, **kwargs: Any) -> ClusterPoller:
        made = ClusterPoller(*args, **kwargs, clock=loop.time)
        made._watches = _Ordered()  # type: ignore[assignment]
        return made

    def now() -> str:
        return (NIGHT + timedelta(seconds=loop.time())).isoformat(timespec="seconds")

    with (
        mock.patch.object(session, "ClusterPoller", poller),
        mock.patch.object(following, "_now", now),
        # Other tests of faults are in a hurry; here waiting costs nothing.
        mock.patch.dict(
            patience.patiently.__kwdefaults__,
            first_wait_s=patience.FIRST_WAIT_S,
            longest_wait_s=patience.LONGEST_WAIT_S,
        ),
    ):
        yield


async def _simulate(scenario: Scenario, folder: Path) -> Result:
    world = World(scenario)
    world.tell(repr(scenario))

    def start_worker(element: Element) -> RunningWorker:
        if not element.ours:
            return _Foreign(world, queue, element)
        return Worker(world, queue, truth, element)

    queue = Queue(world, start_worker)
    with _on_virtual_time():
        pilot = Pilot(world, queue)
        truth = RunTruth(pilot.layout, scenario.rows)
        _prepare(world, queue, pilot)
        for event in scenario.events:
            world.loop.call_at(event.at, _happen, world, queue, pilot, event)
        try:
            await asyncio.wait_for(_drive(world, pilot), HORIZON_S)
        except TimeoutError:
            states = {task.rank: task.state for task in pilot.tasks}
            world.violation(f"not settled after {HORIZON_S / 3600:.0f} h: {states}")
        else:
            await check_end(world, queue, pilot, folder)
    for process in pilot.processes:
        if not process.transport.dead:
            process.kill()
    await asyncio.sleep(60)
    return Result(scenario, world.faults_found, world.trace, world.digest(), world.kinds)


async def _drive(world: World, pilot: Pilot) -> None:
    await pilot.submit()
    pilot.start_triggerer()
    # People clear what failed for a reason that they can mend, and some of the rest.
    while True:
        await asyncio.sleep(30)
        if any(task.state in {"deferred", "starting"} for task in pilot.tasks):
            continue
        if not world.calm:
            continue
        mendable = [task for task in pilot.tasks if task.state == "failed" and _mendable(task)]
        if not mendable:
            break
        for task in mendable:
            task.clears += 1
            await pilot.clear(task.rank)


def _mendable(task: Any) -> bool:
    if task.by_person == "stopped" or task.clears >= 2:
        return False
    refused = task.outcome is not None and "Slurm refused" in task.outcome.message
    return bool(task.error or refused)


def _prepare(world: World, queue: Queue, pilot: Pilot) -> None:
    scenario, rng = world.scenario, world.rng
    if scenario.site.accounts == "flapping":
        spans = sorted(rng.uniform(0, scenario.calm_at) for _ in range(4))
        queue.accounts_down = ((spans[0], spans[1]), (spans[2], spans[3]))
    for _ in range(rng.choice([0, 1, 3])):
        at = rng.uniform(0, scenario.calm_at)
        world.loop.call_at(at, _submit_foreign, queue, rng.randint(1, 3))
    if scenario.site.last_id < MANY_IDS:
        crowd = random.Random(f"crowd {scenario.seed}")
        for _ in range(12):
            at = crowd.uniform(0, scenario.calm_at)
            world.loop.call_at(at, _submit_foreign, queue, crowd.randint(1, 3))
    if rng.random() < 0.2:
        rank, size = rng.randrange(scenario.world_size), scenario.world_size
        world.inject("stale manifest of another fingerprint", f"shard {rank}")
        output = b'[{"request_id": "old", "text": "old"}]'
        digest = hashlib.sha256(output).hexdigest()
        manifest = manifest_of(pilot.layout, rank, size, scenario.rows[rank], digest)
        stale = json.dumps({**manifest, "fingerprint": "0" * 32}).encode()
        world.disk.write(str(pilot.layout.output_file(rank, size)), output, "past")
        world.disk.write(str(pilot.layout.manifest(rank, size)), stale, "past")
    if scenario.site.clock_offset_s:
        world.inject("clocks hours apart")


def _submit_foreign(queue: Queue, count: int) -> None:
    if queue.free_ids < SPARE_IDS:
        return
    options = {"array": f"0-{count - 1}", "time": "60", "requeue": "no"}
    queue.submit(FOREIGN, options, "", "somebody", ours=False)


def _happen(world: World, queue: Queue, pilot: Pilot, event: Event) -> None:
    match event.kind:
        case "node_down":
            name = sorted(queue.nodes)[event.rank % len(queue.nodes)]
            if queue.nodes[name].up:
                world.inject("node down", name)
                queue.node_down(name, event.length_s)
        case "triggerer_killed":
            world.spawn(pilot.kill_triggerer(event.length_s))
        case "submit_killed":
            pilot.kill_submit()
        case "task_stopped":
            world.spawn(pilot.stop(event.rank))
        case "task_cleared":
            world.spawn(pilot.clear(event.rank))
        case kind:
            running = [one for one in queue.elements if one.word == "RUNNING" and one.ours]
            pending = [one for one in queue.elements if one.word == "PENDING" and one.ours]
            chosen = [*running, *(pending if kind == "cancelled_by_hand" else [])]
            if not chosen:
                return
            one = chosen[event.rank % len(chosen)]
            names = {"killed": "killed by a signal", "time_limit": "time limit"}
            world.inject(names.get(kind, kind.replace("_", " ")), one.id)
            _hurt(queue, one, kind)


def _hurt(queue: Queue, one: Element, kind: str) -> None:
    match kind:
        case "preempted":
            queue.preempt(one)
        case "killed":
            queue.kill(one)
        case "cancelled_by_hand":
            queue.cancel([one], BY_HAND)
        case "time_limit":
            assert one.started is not None
            queue.time_out(one, one.started)
