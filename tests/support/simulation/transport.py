"""A connection that breaks: the transport of one process of ours."""

import asyncio
import random
import shlex
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Self, TypeVar

from support.simulation.programs import LoginNode
from support.simulation.world import World

from nightshard.clusters.commands import parse_parsable
from nightshard.clusters.errors import LoginError, LoginFailure, TransportError
from nightshard.clusters.transport import COMMAND_TIMEOUT_S, CommandResult

T = TypeVar("T")

_REFUSALS = (LoginFailure.REFUSED, LoginFailure.TIMED_OUT, LoginFailure.MAINTENANCE)


class SimulatedTransport:
    """Implements :class:`nightshard.clusters.transport.Transport` on a :class:`LoginNode`.

    What has reached the cluster happens there, whatever becomes of the caller.

    Args:
        world: surroundings.
        node: where it logs in.
    """

    def __init__(self, world: World, node: LoginNode) -> None:
        self._world = world
        self._node = node
        self._rng = random.Random(f"transport {world.scenario.seed} {node.host}")
        self._connected = False
        self.polls: list[float] = []
        self.dead = False

    async def run(
        self,
        command: Sequence[str] | str,
        *,
        stdin: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        idempotent: bool = False,
    ) -> CommandResult:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        what = words[0] if words[:2] != ["sh", "-s"] else "poll"
        if what == "poll":
            self.polls.append(self._world.now)

        async def once() -> CommandResult:
            return await self._node.run(words, stdin)

        result = await self._call(what, once, idempotent=idempotent, timeout_s=timeout_s)
        if what == "sbatch" and parse_parsable(result.stdout):
            self._world.acknowledged.add((self._node.host, words[-1]))
        if what != "poll":
            self._world.tell(
                f"{self._node.host}: {shlex.join(words[:3])[-90:]} -> {result.exit_status} "
                f"{' '.join(result.stdout.split())[:60]}"
            )
        elif self._meets_fault(0.3):
            self._world.inject("poll answer cut off")
            cut = self._rng.randrange(len(result.stdout))
            return CommandResult(result.stdout[:cut], "", 0)
        return result

    async def put_bytes(self, path: PurePosixPath, data: bytes) -> None:
        async def once() -> None:
            self._world.disk.write(str(path), data, self._node.host)
            self._world.tell(f"{self._node.host}: writes {path.name} {_short(data)}")

        await self._call("put", once)

    async def put_file(self, path: PurePosixPath, local: Path) -> None:
        await self.put_bytes(path, await asyncio.to_thread(local.read_bytes))

    async def create_bytes(self, path: PurePosixPath, data: bytes) -> bool:
        async def once() -> bool:
            written = data
            if self._meets_fault(1.0):
                self._world.inject("connection cut while a file is created", path.name)
                written = data[: self._rng.choice([0, len(data) // 2])]
            made = self._world.disk.create(str(path), written, self._node.host)
            self._world.tell(f"{self._node.host}: creates {path.name}: {made}")
            if made and written is not data:
                self._connected = False
                raise TransportError("The connection to the cluster broke: cut.")
            return made

        return await self._call("create", once, idempotent=False)

    async def get_bytes(self, path: PurePosixPath) -> bytes | None:
        async def once() -> bytes | None:
            return self._world.disk.read(str(path), self._node.host)

        return await self._call("get", once)

    async def get_file(self, path: PurePosixPath, local: Path) -> None:
        data = await self.get_bytes(path)
        if data is None:
            raise TransportError(f"reading {path} on the cluster failed: No such file.")
        await asyncio.to_thread(local.write_bytes, data)

    async def exists(self, path: PurePosixPath) -> bool:
        async def once() -> bool:
            return self._world.disk.read(str(path), self._node.host) is not None

        return await self._call("exists", once)

    async def close(self) -> None:
        self._connected = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _meets_fault(self, weight: float) -> bool:
        faults = self._world.scenario.faults
        return not self._world.calm and self._rng.random() < faults.rate * weight

    async def _call(
        self,
        what: str,
        action: Callable[[], Awaitable[T]],
        *,
        idempotent: bool = True,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> T:
        for last in (not idempotent, True):
            await self._log_in()
            try:
                return await self._once(what, action, timeout_s)
            except TransportError:
                if last:
                    raise
        raise AssertionError  # the loop returns or raises

    async def _log_in(self) -> None:
        if self.dead:
            await self._world.loop.create_future()
        if self._connected:
            return
        refused = self._world.scenario.faults.refused
        now = self._world.now
        if any(a <= now < b for a, b in refused):
            failure = self._rng.choice(_REFUSALS)
            self._world.inject("login refused", failure.value)
            await asyncio.sleep(self._rng.choice([0.05, 15.0]))
            raise LoginError(failure, f"The login node does not let us in: {failure.value}.")
        await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        self._connected = True

    async def _once(self, what: str, action: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        rng, world = self._rng, self._world
        kind = "good"
        if self._meets_fault(1.0):
            kind = rng.choice(("before", "after", "slow", "late"))
        await asyncio.sleep(rng.uniform(0.005, 0.08))
        if self.dead:
            await world.loop.create_future()
        if kind == "before":
            world.inject(f"connection cut before {what}")
            self._connected = False
            raise TransportError("The connection to the cluster broke: reset by peer.")
        if kind == "late":
            # The command waits on the cluster for longer than we wait for it. Only programs of
            # Slurm go on without us; a half-done transfer ends with its connection.
            if what in {"sbatch", "scancel"}:
                world.inject(f"{what} runs after its time-out")
                delay = timeout_s + rng.uniform(-30, world.scenario.faults.late_s)
                world.spawn(_later(delay, action))
            else:
                world.inject(f"{what} times out")
            await asyncio.sleep(timeout_s)
            raise TransportError(f"The cluster did not answer within {timeout_s:g} s.")
        if kind == "slow":
            world.inject(f"{what} answered slowly")
            await asyncio.sleep(rng.uniform(5, 60))
        result = await asyncio.shield(world.spawn(action()))
        if kind == "after":
            world.inject(f"reply of {what} lost")
            self._connected = False
            raise TransportError("The connection to the cluster broke: reset by peer.")
        await asyncio.sleep(rng.uniform(0.005, 0.08))
        if self.dead:
            await world.loop.create_future()
        return result


async def _later(delay: float, action: Callable[[], Awaitable[object]]) -> None:
    await asyncio.sleep(delay)
    await action()


def _short(data: bytes) -> str:
    return data.decode(errors="replace").strip()[:150]
