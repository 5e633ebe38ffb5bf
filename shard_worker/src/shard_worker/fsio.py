"""Files that are there completely or not at all, also on a shared file system."""

import hashlib
import os
import socket
from pathlib import Path

CHUNK = 1 << 20


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``data``: temporary name, fsync, rename, fsync of the folder.

    Args:
        path: a file in an existing folder.
        data: the whole content.
        durable: False skips both fsyncs, for files whose loss after a power cut does not matter.

    Raises:
        OSError: disk full, quota used up, no permission; ``path`` is then as it was.
    """
    # Host and pid: on a shared file system a pid alone does not name a process.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def create_exclusive(path: Path, data: bytes) -> None:
    """Create ``path`` with ``data`` unless it exists; O_EXCL is atomic on NFS since version 3.

    Raises:
        FileExistsError: somebody else was first.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed process left of :func:`write_atomic`; only the folder's owner may."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
