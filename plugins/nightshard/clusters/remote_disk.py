"""Why a file could not be written: SFTP says "Failure" for a full disk and for much else."""

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import PurePosixPath

import asyncssh

from nightshard.clusters.errors import RemoteDiskFullError, TransportError
from nightshard.clusters.transport import Transport

PROBE_LIMIT = 8 * 2**20

# A quota shows in no listing that all sites have, so a small file is written for the system's own
# words. df -P: POSIX's one line a file system; -i is GNU's and BusyBox's.
_SCRIPT = """
LC_ALL=C; export LC_ALL
probe="$1/.nightshard-probe.$$"
{ head -c "$2" /dev/zero > "$probe"; } 2>&1 | sed 's/^/probe /'
rm -f "$probe"
df -Pk "$1" 2>/dev/null | tail -n 1 | sed 's/^/space /'
df -Pi "$1" 2>/dev/null | tail -n 1 | sed 's/^/inodes /'
"""
_LINE = re.compile(r"\s(\d+)\s+(\d+)\s+(-?\d+)\s+(?:\d+%|-)\s")


@contextlib.asynccontextmanager
async def named_if_full(
    transport: Transport, path: PurePosixPath, size: int
) -> AsyncIterator[None]:
    """Turn the failure of an SFTP write inside into :class:`RemoteDiskFullError` where it is one.

    Args:
        transport: to the cluster.
        path: the file that is written.
        size: its size in bytes.
    """
    try:
        yield
    except TransportError as error:
        if isinstance(error.__cause__, asyncssh.SFTPError):
            full = await full_disk(transport, path.parent, size)
            if full is not None:
                raise full from error
        raise


async def full_disk(
    transport: Transport, folder: PurePosixPath, needed: int
) -> RemoteDiskFullError | None:
    """Look whether a folder has no room for a file; call it after a failed write.

    Args:
        transport: to the cluster.
        folder: where the file was to be written.
        needed: its size in bytes.

    Returns:
        The error to raise, or None where there is room, or where that is not known.
    """
    size = str(max(1, min(needed, PROBE_LIMIT)))
    command = ["sh", "-c", _SCRIPT, "sh", str(folder), size]
    try:
        result = await transport.run(command, idempotent=True)
    except TransportError:
        return None
    return why_full(result.stdout, folder, needed)


def why_full(answer: str, folder: PurePosixPath, needed: int) -> RemoteDiskFullError | None:
    """Read the answer of the look.

    Args:
        answer: lines that begin with ``probe``, ``space`` and ``inodes``.
        folder: where the file was to be written.
        needed: its size in bytes.
    """
    lines = [line.partition(" ") for line in answer.splitlines()]
    words = " ".join(rest for kind, _, rest in lines if kind == "probe").lower()
    numbers = {kind: found for kind, _, rest in lines if (found := _LINE.search(f"{rest} "))}
    free = int(numbers["space"][3]) * 1024 if "space" in numbers else None
    inodes = numbers.get("inodes")
    # File systems without a fixed number of inodes, such as btrfs, report 0 of 0.
    no_inodes = inodes is not None and int(inodes[1]) > 0 and int(inodes[3]) <= 0
    if "quota" in words:
        what = "your disk quota is used up"
    elif no_inodes:
        what = "the disk is full: it has no room for more files (no inodes are left)"
    elif "no space left" in words or (free is not None and free < needed):
        left = "" if free is None else f" ({max(free, 0) / 2**20:,.1f} MiB are free)"
        what = f"the disk is full{left}"
    else:
        return None
    return RemoteDiskFullError(
        f"Nothing can be written to {folder} on the cluster because {what}; free some space there "
        "and run it again."
    )


def full_disk_in_words(text: str, folder: PurePosixPath) -> RemoteDiskFullError | None:
    """Read the words of a program that failed to write.

    Args:
        text: its standard error.
        folder: where the file was to be written.
    """
    return why_full("\n".join(f"probe {line}" for line in text.splitlines()), folder, 0)
