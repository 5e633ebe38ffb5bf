"""Large files: resumed where they were cut, and checked by their SHA-256 when they are there.

A transfer works in a part file whose name holds the digest of the content. So what is found in it
is a beginning of the same content, and whoever writes into it writes the same bytes to the same
places: two transfers of one file at once do each other no harm.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Protocol, TypeVar

from nightshard.clusters.errors import RemoteDiskFullError, TransportError
from nightshard.clusters.transport import COMMAND_TIMEOUT_S, Transport
from nightshard.core.errors import UserError

LARGE_FILE = 8 * 2**20
"""Bytes from which on a file is worth a resume and a check."""

CHUNK = 4 * 2**20
IN_FLIGHT = 2
"""Chunks under way at once; each is split into the server's own block size."""

HASH_BYTES_PER_S = 20e6
"""What the slowest file system that we wait for hashes in a second."""

_LONGEST_STEM = 200  # of the 255 bytes that file systems allow

P = TypeVar("P", bound=PurePath)


class RemoteFiles(Protocol):
    """The steps of which a large transfer is made; each raises TransportError if it failed."""

    async def size(self, path: PurePosixPath) -> int | None:
        """Size in bytes; None where there is no file."""
        ...

    async def sha256(self, path: PurePosixPath, size: int) -> str | None:
        """Hexadecimal digest of a file of about ``size`` bytes; None where there is no file."""
        ...

    async def write_from(self, path: PurePosixPath, local: Path, start: int) -> None:
        """Write the local bytes from ``start`` on to the same places; truncate nothing."""
        ...

    async def read_into(self, path: PurePosixPath, local: Path, start: int) -> None:
        """Write the remote bytes from ``start`` on to the same places of an existing file."""
        ...

    async def rename(self, path: PurePosixPath, new: PurePosixPath) -> bool:
        """Rename over what is there; False where there is nothing to rename."""
        ...

    async def remove(self, path: PurePosixPath) -> None:
        """Remove a file if there is one."""
        ...


def part_of(path: P, tag: str = "") -> P:
    """Return the hidden name beside a file under which it is written.

    Args:
        path: the file.
        tag: digest of the content where a transfer may be resumed; random if empty.
    """
    name = path.name
    if len(name.encode(errors="surrogateescape")) > _LONGEST_STEM:
        name = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
    return path.with_name(f".{name}.{tag[:16] or secrets.token_hex(4)}.part")


def resume_at(found: int | None, total: int) -> int:
    """Return where an upload goes on that left ``found`` bytes of ``total`` behind.

    Some servers write what is in flight out of order, so the last chunks are sent again.
    """
    if found is None or found > total:
        return 0
    return max(0, found // CHUNK - IN_FLIGHT) * CHUNK


def file_sha256(path: Path) -> str:
    """Hash a file in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_at(path: Path, offset: int, count: int) -> bytes:
    """Read a piece of a local file."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write a piece of a local file that exists.

    Raises:
        UserError: the system refused, for example because the disk is full.
    """
    with local_writes(path), path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def write_whole(path: Path, data: bytes) -> None:
    """Write a local file in one step.

    Raises:
        UserError: the system refused.
    """
    part = part_of(path)
    try:
        with local_writes(path):
            part.write_bytes(data)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def local_writes(path: Path) -> Iterator[None]:
    """Say in one sentence that a file cannot be written here."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written on this machine: {error.strerror or error}; free some "
            "space or choose another folder."
        ) from error


async def remote_sha256(transport: Transport, path: PurePosixPath, size: int) -> str | None:
    """Hash a remote file there; None where it does not exist.

    Args:
        transport: to the cluster.
        path: the file.
        size: about how many bytes it has.

    Raises:
        TransportError: it could not be read, or the cluster has no ``sha256sum``.
    """
    # By redirection: beside an argument with odd characters sha256sum prints an escaped name.
    script = 'sha256sum < "$1" || { [ ! -e "$1" ] && echo absent -; }'
    result = await transport.run(
        ["sh", "-c", script, "sh", str(path)],
        timeout_s=COMMAND_TIMEOUT_S + size / HASH_BYTES_PER_S,
        idempotent=True,
    )
    found = re.search(r"(absent|[0-9a-f]{64})\s+-\s*$", result.stdout)
    if not result.ok or found is None:
        detail = " ".join(result.stderr.split()) or f"exit status {result.exit_status}"
        raise TransportError(f"checking {path} on the cluster failed: {detail}.")
    return None if found[1] == "absent" else found[1]


async def put_whole(
    transport: Transport, files: RemoteFiles, path: PurePosixPath, local: Path
) -> None:
    """Upload a file, a large one in pieces; see :func:`put_large`."""
    if (await asyncio.to_thread(local.stat)).st_size >= LARGE_FILE:
        await put_large(files, path, local)
    else:
        await transport.put_bytes(path, await asyncio.to_thread(local.read_bytes))


async def get_whole(
    transport: Transport, files: RemoteFiles, path: PurePosixPath, local: Path
) -> None:
    """Download a file, a large one in pieces; see :func:`get_large`.

    Raises:
        TransportError: it is not there, or the connection failed.
    """
    if (await files.size(path) or 0) >= LARGE_FILE:
        await get_large(files, path, local)
        return
    data = await transport.get_bytes(path)
    if data is None:
        raise TransportError(f"reading {path} on the cluster failed: No such file.")
    await asyncio.to_thread(write_whole, local, data)


async def put_large(files: RemoteFiles, path: PurePosixPath, local: Path) -> None:
    """Upload a file, going on where an earlier call was cut.

    Raises:
        TransportError: it was cut again, or arrived damaged twice.
        RemoteDiskFullError: there is no room for it; what was written is removed again.
    """
    total = (await asyncio.to_thread(local.stat)).st_size
    digest = await asyncio.to_thread(file_sha256, local)
    if await files.size(path) == total and await files.sha256(path, total) == digest:
        return
    part = part_of(path, digest)
    found = await files.size(part)
    if found is not None and found > total:
        await files.remove(part)
    for start in (resume_at(found, total), 0):
        try:
            await files.write_from(part, local, start)
        except RemoteDiskFullError:
            await files.remove(part)
            raise
        if await files.sha256(part, total) == digest and await files.rename(part, path):
            return
        # Another transfer of the same content may have moved the part in the meantime, and this
        # one then begun a new part.
        if await files.sha256(path, total) == digest:
            await files.remove(part)
            return
    await files.remove(part)
    raise TransportError(
        f"{path} arrived damaged on the cluster twice: its checksum is not that of {local.name}."
    )


async def get_large(files: RemoteFiles, path: PurePosixPath, local: Path) -> None:
    """Download a file, going on where an earlier call was cut.

    Raises:
        TransportError: it was cut again, arrived damaged twice, or is not there.
    """
    for again in (False, True):
        total = await files.size(path)
        digest = None if total is None else await files.sha256(path, total)
        if total is None or digest is None:
            raise TransportError(f"reading {path} on the cluster failed: No such file.")
        part = part_of(local, digest)
        found = await asyncio.to_thread(_open_part, part, total)
        await files.read_into(path, part, 0 if again else found)
        if await asyncio.to_thread(_place, part, local, digest):
            return
    await asyncio.to_thread(part.unlink, missing_ok=True)
    raise TransportError(
        f"{path} arrived damaged from the cluster twice: its checksum is not what it was there."
    )


def _open_part(part: Path, total: int) -> int:
    """Make the part file if need be; return how much of it is there already."""
    with local_writes(part), part.open("ab") as file:
        found = file.tell()
        if found > total:
            file.truncate(0)
            return 0
    return found


def _place(part: Path, local: Path, digest: str) -> bool:
    try:
        if file_sha256(part) == digest:
            part.replace(local)
            return True
    except FileNotFoundError:
        # Another transfer of the same content was faster.
        return local.exists() and file_sha256(local) == digest
    return False
