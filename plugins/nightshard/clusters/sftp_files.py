"""The steps of a large transfer over SFTP."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

import asyncssh

from nightshard.clusters.errors import TransportError
from nightshard.clusters.remote_disk import named_if_full
from nightshard.clusters.transfer import (
    CHUNK,
    IN_FLIGHT,
    part_of,
    read_at,
    remote_sha256,
    write_at,
)
from nightshard.clusters.transport import Transport

STALL_TIMEOUT_S = 300.0
"""How long one chunk may take; a whole file may take as long as it needs."""

T = TypeVar("T")


class Transfer(Protocol):
    """Runs an action with an SFTP client, and once more where the connection broke."""

    async def __call__(
        self,
        action: Callable[[asyncssh.SFTPClient], Awaitable[T]],
        what: str,
        *,
        timeout_s: float | None = ...,
    ) -> T:
        """Run it; ``what`` begins the sentence on its failure."""
        ...


class SftpFiles:
    """See :class:`~nightshard.clusters.transfer.RemoteFiles`."""

    def __init__(self, transport: Transport, transfer: Transfer) -> None:
        self._transport = transport
        self._transfer = transfer

    async def size(self, path: PurePosixPath) -> int | None:
        """See :meth:`RemoteFiles.size`."""

        async def once(sftp: asyncssh.SFTPClient) -> int | None:
            try:
                return (await sftp.stat(str(path))).size
            except asyncssh.SFTPNoSuchFile:
                return None

        return await self._transfer(once, f"looking for {path}")

    async def sha256(self, path: PurePosixPath, size: int) -> str | None:
        """See :meth:`RemoteFiles.sha256`."""
        return await remote_sha256(self._transport, path, size)

    async def write_from(self, path: PurePosixPath, local: Path, start: int) -> None:
        """See :meth:`RemoteFiles.write_from`."""
        total = (await asyncio.to_thread(local.stat)).st_size
        done = start

        async def once(sftp: asyncssh.SFTPClient) -> None:
            flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT
            async with sftp.open(str(path), flags, encoding=None) as file:

                async def send(offset: int) -> int:
                    data = await asyncio.to_thread(read_at, local, offset, CHUNK)
                    await file.write(data, offset)
                    return offset + len(data)

                async def sent(end: int) -> None:
                    nonlocal done
                    done = end

                await in_order((send(offset) for offset in range(done, total, CHUNK)), sent)

        async with named_if_full(self._transport, path, total):
            await self._transfer(once, f"writing {path}", timeout_s=None)

    async def read_into(self, path: PurePosixPath, local: Path, start: int) -> None:
        """See :meth:`RemoteFiles.read_into`."""
        done = start

        async def once(sftp: asyncssh.SFTPClient) -> None:
            async with sftp.open(str(path), "rb") as file:
                total = (await file.stat()).size or 0

                async def fetch(offset: int) -> tuple[int, bytes]:
                    data: Any = await file.read(min(CHUNK, total - offset), offset)
                    return offset, bytes(data)

                async def fetched(piece: tuple[int, bytes]) -> None:
                    nonlocal done
                    # In order, so that the length of the part says how much is there.
                    await asyncio.to_thread(write_at, local, *piece)
                    done = piece[0] + len(piece[1])

                await in_order((fetch(offset) for offset in range(done, total, CHUNK)), fetched)

        await self._transfer(once, f"reading {path}", timeout_s=None)

    async def rename(self, path: PurePosixPath, new: PurePosixPath) -> bool:
        """See :meth:`RemoteFiles.rename`."""

        async def once(sftp: asyncssh.SFTPClient) -> bool:
            try:
                await sftp.posix_rename(str(path), str(new))
            except asyncssh.SFTPNoSuchFile:
                return False
            return True

        return await self._transfer(once, f"writing {new}")

    async def remove(self, path: PurePosixPath) -> None:
        """See :meth:`RemoteFiles.remove`."""

        async def once(sftp: asyncssh.SFTPClient) -> None:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await sftp.remove(str(path))

        await self._transfer(once, f"removing {path}")


async def in_order(
    steps: Iterator[Coroutine[Any, Any, T]], each: Callable[[T], Awaitable[None]]
) -> None:
    """Run steps a few at a time and hand on their results in order.

    Raises:
        TransportError: one of them stood still.
    """
    pending: deque[asyncio.Task[T]] = deque()
    try:
        while True:
            while len(pending) < IN_FLIGHT and (step := next(steps, None)) is not None:
                pending.append(asyncio.create_task(step))
            if not pending:
                return
            try:
                async with asyncio.timeout(STALL_TIMEOUT_S):
                    result = await pending[0]
            except TimeoutError:
                raise TransportError(
                    f"The transfer stood still for {STALL_TIMEOUT_S:g} s."
                ) from None
            pending.popleft()
            await each(result)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


@contextlib.asynccontextmanager
async def renamed_into_place(sftp: asyncssh.SFTPClient, path: PurePosixPath) -> AsyncIterator[str]:
    """Lend a temporary name that becomes the file's at the end, or vanishes at a failure."""
    part = str(part_of(path))
    try:
        yield part
        await sftp.posix_rename(part, str(path))
    except BaseException:
        with contextlib.suppress(asyncssh.Error, OSError):
            await sftp.remove(part)
        raise


async def create_exclusively(sftp: asyncssh.SFTPClient, path: PurePosixPath, data: bytes) -> bool:
    """Write a file only where none exists, whole or not at all; False where one does."""
    part = str(part_of(path))
    try:
        async with sftp.open(part, "wb") as file:
            await file.write(data)
        try:
            await sftp.link(part, str(path))
        except asyncssh.SFTPError:
            # Version 3 of the protocol, OpenSSH's, has no code of its own for "exists".
            if await sftp.exists(str(path)):
                return False
            # A file system without hard links.
            return await _create_in_place(sftp, path, data)
        return True
    finally:
        with contextlib.suppress(asyncssh.Error, OSError):
            await sftp.remove(part)


async def _create_in_place(sftp: asyncssh.SFTPClient, path: PurePosixPath, data: bytes) -> bool:
    try:
        async with sftp.open(str(path), "xb") as file:
            await file.write(data)
    except (asyncssh.SFTPFileAlreadyExists, asyncssh.SFTPFailure):
        if await sftp.exists(str(path)):
            return False
        raise
    return True
