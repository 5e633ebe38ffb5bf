"""Uploads of one file at once: in every order of their steps each ends well and leaves no trace."""

import asyncio
import hashlib
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshard.clusters import transfer
from nightshard.clusters.transfer import part_of, put_large

pytestmark = pytest.mark.unit

CONTENT = b"weights"
TARGET = PurePosixPath("/work/w")
PART = part_of(TARGET, hashlib.sha256(CONTENT).hexdigest())


class Turns:
    """Lets one step of one upload go on at a time, the one that hypothesis chooses."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self._waiting: dict[asyncio.Task[None], asyncio.Future[None]] = {}

    async def mine(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = turn
        await turn

    async def give(self, tasks: list[asyncio.Task[None]]) -> None:
        while running := [task for task in tasks if not task.done()]:
            if len(self._waiting) == len(running):
                chosen = running[self._data.draw(st.integers(0, len(running) - 1))]
                self._waiting.pop(chosen).set_result(None)
            # The uploads hash in threads, whose ends come when they come.
            await asyncio.sleep(0)


class Disk:
    """A disk as POSIX has it: a file that is open keeps its content when its name changes."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.names: dict[PurePosixPath, bytearray] = {}

    async def size(self, path: PurePosixPath) -> int | None:
        await self._turns.mine()
        return len(self.names[path]) if path in self.names else None

    async def sha256(self, path: PurePosixPath, size: int) -> str | None:
        await self._turns.mine()
        found = self.names.get(path)
        await self._turns.mine()
        return None if found is None else hashlib.sha256(found).hexdigest()

    async def write_from(self, path: PurePosixPath, local: Path, start: int) -> None:
        await self._turns.mine()
        opened = self.names.setdefault(path, bytearray())
        content = local.read_bytes()
        for place in range(start, len(content)):
            await self._turns.mine()
            opened.extend(bytes(max(0, place + 1 - len(opened))))
            opened[place] = content[place]

    async def read_into(self, path: PurePosixPath, local: Path, start: int) -> None:
        raise NotImplementedError

    async def rename(self, path: PurePosixPath, new: PurePosixPath) -> bool:
        await self._turns.mine()
        if path not in self.names:
            return False
        self.names[new] = self.names.pop(path)
        return True

    async def remove(self, path: PurePosixPath) -> None:
        await self._turns.mine()
        self.names.pop(path, None)


@settings(max_examples=500)
@given(data=st.data(), uploads=st.integers(1, 3), left=st.integers(0, len(CONTENT)))
def test_uploads_at_once_leave_the_file_and_nothing_else(
    data: st.DataObject, uploads: int, left: int
) -> None:
    async def upload() -> dict[PurePosixPath, bytearray]:
        turns = Turns(data)
        disk = Disk(turns)
        if left:
            disk.names[PART] = bytearray(CONTENT[:left])
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "w"
            local.write_bytes(CONTENT)
            tasks = [asyncio.create_task(put_large(disk, TARGET, local)) for _ in range(uploads)]
            await turns.give(tasks)
            await asyncio.gather(*tasks)
        return disk.names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "CHUNK", 1)
        assert asyncio.run(upload()) == {TARGET: bytearray(CONTENT)}
