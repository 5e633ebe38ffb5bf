"""Airflow's part: processes that come and go, tasks that people stop and clear."""

import asyncio
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from support.simulation.programs import LoginNode
from support.simulation.queue import Queue
from support.simulation.transport import SimulatedTransport
from support.simulation.worker import FINGERPRINT
from support.simulation.world import World

from nightshard.clusters import session
from nightshard.clusters.following import Cluster, ShardFollower, ShardOutcome
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.patience import patiently
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import render_script
from nightshard.clusters.submission import Shard, array_size, first_submissions
from nightshard.clusters.submit import ArrayJob
from nightshard.core.errors import NightshardError, UserError

TEMPLATES = Path(__file__).parents[3] / "include" / "sbatch"
ON_KILL_TIMEOUT_S = 30.0
"""Airflow's ``[triggerer] on_kill_timeout``."""


def profile_of(world: World) -> ClusterProfile:
    """Return the profile of the scenario's site."""
    scenario, site = world.scenario, world.scenario.site
    return ClusterProfile.model_validate(
        {
            "name": "sim",
            "title": "Simulated",
            "ssh_conn_id": "sim",
            "workdir": "/work",
            "worker": {"python": "python3"},
            "models": {"dir": "/models"},
            "slurm": {
                "gres": "gpu:1",
                "accounting": site.asked_accounts,
                "requeue": site.requeue,
                "max_array_size": site.max_array_size,
                "max_submitted": site.max_submitted if site.told_limit else None,
            },
            "polling": {"floor_s": 10, "ceiling_s": 120, "grace_s": 120, "manifest_grace_s": 30},
            "retry": {"max_attempts": scenario.max_attempts},
        }
    )


@dataclass(eq=False)
class ShardTask:
    """One mapped Airflow task.

    Attributes:
        told: what ``submit_shards`` returned for the shard, as JSON.
        state: ``deferred``, ``success`` or ``failed``.
        by_person: the last thing that a person did to it: ``stopped``, ``cleared`` or nothing.
    """

    rank: int
    told: dict[str, Any]
    try_number: int = 1
    state: str = "deferred"
    by_person: str = ""
    outcome: ShardOutcome | None = None
    error: str = ""
    undelivered: bool = False
    clears: int = 0
    tries: list[int] = field(default_factory=list)


class Process:
    """One process of ours: its own memory and its own connection."""

    def __init__(self, world: World, queue: Queue, name: str) -> None:
        self.world, self.name = world, name
        self.transport = SimulatedTransport(world, LoginNode(world, queue, name))
        profile = profile_of(world).model_copy(update={"ssh_conn_id": name})
        self.cluster: Cluster = session.cluster_session(profile, TEMPLATES, lambda: self.transport)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.began = world.now
        self.ended: float | None = None

    def start(self, action: Any) -> "asyncio.Task[Any]":
        """Run something in this process."""
        task = self.world.loop.create_task(action)
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))
        return task

    def kill(self) -> None:
        """End it; what it has sent to the cluster happens there all the same."""
        self.world.tell(f"{self.name} is killed")
        self.transport.dead = True
        self.ended = self.world.now
        polling = self.cluster.poller._task
        for task in [*self.tasks, *([polling] if polling else [])]:
            task.cancel()


class Pilot:
    """Drives one run as the DAG does."""

    def __init__(self, world: World, queue: Queue) -> None:
        self.world, self.queue = world, queue
        self.profile = profile_of(world)
        self.layout = RunLayout(PurePosixPath("/work"), "run-1")
        self.tasks: list[ShardTask] = []
        self.processes: list[Process] = []
        self.running: dict[ShardTask, tuple[Process, asyncio.Task[Any]]] = {}
        self._numbers = itertools.count(1)
        self.triggerer: Process | None = None
        self.submitting: Process | None = None
        self.stopped: set[int] = set()
        self.resubmitted = 0
        self.told: dict[int, list[str]] = {}

    def process(self, kind: str) -> Process:
        """Start a process."""
        made = Process(self.world, self.queue, f"{kind}{next(self._numbers)}")
        self.processes.append(made)
        return made

    # The step that submits.

    async def submit(self) -> None:
        """Run the task ``submit_shards``, again after its process was killed."""
        while True:
            self.submitting = self.process("submit")
            task = self.submitting.start(self._submit(self.submitting.cluster))
            try:
                jobs = await task
                break
            except asyncio.CancelledError:
                await asyncio.sleep(self.world.rng.uniform(1, 60))
            except UserError as error:
                self.world.tell(f"submit fails: {error}")
                await asyncio.sleep(120)
            finally:
                self.submitting.kill()
        self.submitting = None
        size = self._size
        for rank, rows in enumerate(self.world.scenario.rows):
            shard = Shard(
                layout=self.layout,
                rank=rank,
                world_size=self.world.scenario.world_size,
                rows=rows,
                fingerprint=FINGERPRINT,
                array_size=size,
                worker="/work/worker/w.zip",
                max_job_minutes=self.world.scenario.job_minutes,
            )
            job = jobs.get(rank // size)
            told = {"shard": shard.to_dict(), "job": job.to_dict() if job else None}
            self.tasks.append(ShardTask(rank, told))

    @property
    def _size(self) -> int:
        slurm = self.profile.slurm
        return array_size(self.world.scenario.world_size, slurm.max_array_size, slurm.max_submitted)

    async def _submit(self, cluster: Cluster) -> dict[int, ArrayJob]:
        jobs: dict[int, ArrayJob] = {}
        world_size = self.world.scenario.world_size
        for number, one in enumerate(first_submissions(self.layout, world_size, self._size)):
            script = render_script(
                cluster.profile,
                one,
                world_size=world_size,
                max_job_minutes=self.world.scenario.job_minutes,
                worker_zip="/work/worker/w.zip",
                templates=TEMPLATES,
            )
            job = await patiently(
                functools.partial(cluster.admission.submit_now, one, script), self.world.tell
            )
            if job is None:
                break
            jobs[number] = job
        return jobs

    # The mapped tasks.

    def defer(self, task: ShardTask) -> None:
        """Let the triggerer follow a task, where there is one."""
        task.state = "deferred"
        if self.triggerer is not None:
            self._follow(task, self.triggerer)

    def _follow(self, task: ShardTask, process: Process) -> None:
        task.tries.append(task.try_number)
        running = process.start(self._trigger(task, process, task.try_number))
        self.running[task] = (process, running)

    async def _trigger(self, task: ShardTask, process: Process, try_number: int) -> None:
        """Do what ``ShardTrigger.run`` does."""
        follower = self.follower(task, process, try_number)
        try:
            if try_number > 1:
                await patiently(follower.own, self._tell(task))
            outcome = await follower.run()
        except UserError as error:
            self._settle(task, process, try_number, None, str(error))
            return
        except Exception as error:  # noqa: BLE001 (none may come)
            self.world.violation(f"the follower of shard {task.rank} raised {error!r}")
            self._settle(task, process, try_number, None, repr(error))
            return
        self._settle(task, process, try_number, outcome, "")

    def follower(self, task: ShardTask, process: Process, try_number: int) -> ShardFollower:
        """Make a follower from a task's JSON."""
        job = ArrayJob.from_dict(task.told["job"]) if task.told["job"] else None
        shard = Shard.from_dict(task.told["shard"])
        return ShardFollower(process.cluster, shard, job, self._tell(task), try_number)

    def _tell(self, task: ShardTask) -> Callable[[str], None]:
        def tell(sentence: str) -> None:
            self.world.tell(f"[shard {task.rank} try {task.try_number}] {sentence}")

        return tell

    def _settle(
        self,
        task: ShardTask,
        process: Process,
        try_number: int,
        outcome: ShardOutcome | None,
        error: str,
    ) -> None:
        if try_number != task.try_number or task.state != "deferred":
            return  # Airflow takes no event of a try that is over
        if process is not self.triggerer and not self.world.scenario.overlap:
            return
        task.outcome, task.error = outcome, error
        done = outcome is not None and outcome.done
        task.state = "success" if done else "failed"
        message = error or (outcome.message if outcome else "")
        self.world.tell(f"[shard {task.rank} try {try_number}] {task.state}: {message}")

    # What happens to them.

    def start_triggerer(self) -> None:
        """Start a triggerer, which takes all deferred tasks over."""
        self.triggerer = self.process("triggerer")
        for task in self.tasks:
            if task.state == "deferred":
                self._follow(task, self.triggerer)

    async def kill_triggerer(self, length_s: float) -> None:
        """Kill the triggerer and start another one, before or after."""
        if self.triggerer is None:
            return
        self.world.inject("triggerer killed")
        old, self.triggerer = self.triggerer, None
        if self.world.scenario.overlap:
            # A triggerer that was taken for dead lives on beside its successor.
            self.world.inject("two triggerers at once")
            self.start_triggerer()
            await asyncio.sleep(length_s / 4)
            old.kill()
        else:
            old.kill()
            await asyncio.sleep(length_s)
            self.start_triggerer()

    async def stop(self, rank: int) -> None:
        """Mark a task failed: Airflow calls the trigger's ``on_kill`` soon after."""
        task = self._task(rank)
        if task is None or task.state != "deferred":
            return
        self.world.inject("task marked failed", f"shard {rank}")
        task.state, task.by_person = "failed", "stopped"
        self.stopped.add(rank)
        try_number, running = task.try_number, self.running.get(task)
        await asyncio.sleep(1.2)
        await self._on_kill(task, try_number, running)

    async def clear(self, rank: int, wait_s: float = 0.0) -> None:
        """Clear a task: the next try begins, and the old one's ``on_kill`` runs beside it."""
        await asyncio.sleep(wait_s)
        task = self._task(rank)
        if task is None or task.state == "success":
            return
        self.world.inject("task cleared", f"shard {rank} in state {task.state}")
        was_deferred, old_try = task.state == "deferred", task.try_number
        task.try_number += 1
        task.state, task.by_person, task.outcome = "starting", "cleared", None
        if was_deferred:
            delay = self.world.rng.uniform(0.5, 4)
            self.world.spawn(self._kill_later(task, old_try, self.running.get(task), delay))
        await asyncio.sleep(self.world.rng.uniform(0, 3))
        await self._execute(task)

    async def _execute(self, task: ShardTask) -> None:
        """Do what ``ShardSensor.execute`` does in a process of its own."""
        try_number = task.try_number
        executing = self.process("execute")
        try:
            await executing.start(self.follower(task, executing, try_number).own())
        except NightshardError as error:
            self.world.tell(f"[shard {task.rank} try {try_number}] {error}")
        executing.kill()
        if task.try_number == try_number and task.state == "starting":
            self.defer(task)

    async def _kill_later(
        self,
        task: ShardTask,
        try_number: int,
        running: tuple[Process, "asyncio.Task[Any]"] | None,
        delay: float,
    ) -> None:
        await asyncio.sleep(delay)
        await self._on_kill(task, try_number, running)

    async def _on_kill(
        self,
        task: ShardTask,
        try_number: int,
        running: tuple[Process, "asyncio.Task[Any]"] | None = None,
    ) -> None:
        """Cancel a trigger as Airflow does, then let it clean up for at most half a minute."""
        process, follow = running or self.running.get(task) or (None, None)
        if process is None or follow is None or process.transport.dead or follow.done():
            if task.by_person == "stopped":
                task.undelivered = True
                self.world.tell(f"nobody is there to cancel shard {task.rank}")
            return
        follow.cancel()
        follower = self.follower(task, process, try_number)
        path = str(self.layout.owner(task.rank))
        owner = self.world.disk.read(path, process.name)
        is_later = owner is not None and int(owner) > try_number
        cleaning = process.start(asyncio.wait_for(follower.cancel(), ON_KILL_TIMEOUT_S))
        try:
            answer = await cleaning
            self.world.tell(f"[shard {task.rank} try {try_number}] {answer}")
            if is_later and answer.startswith("Cancelled"):
                self.world.violation(f"try {try_number} of shard {task.rank}: {answer}")
        except (NightshardError, TimeoutError, asyncio.CancelledError) as error:
            task.undelivered = True
            self.world.tell(f"shard {task.rank} could not be cancelled: {error!r}")

    def _task(self, rank: int) -> ShardTask | None:
        return self.tasks[rank] if rank < len(self.tasks) else None

    def kill_submit(self) -> None:
        """Kill the process that submits."""
        if self.submitting is not None:
            self.world.inject("process killed while it submits")
            for task in list(self.submitting.tasks):
                task.cancel()
