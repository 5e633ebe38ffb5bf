"""Copying a model to a cluster over SFTP, where no node there reaches the Hub."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.staging import free_of
from nightshard.clusters.transport import Transport, run_checked
from nightshard.core.errors import UserError

LOCK_STALE_S = 1800
"""A lock whose owner has copied no file for so long is taken over."""

WAIT_S = 10.0
_GIB = 1 << 30

# Arguments: the lock, seconds after which it is stale. Prints "mine" where it could be taken.
_LOCK = """\
mkdir -p -- "${1%/*}" && mkdir -- "$1" 2>/dev/null && { echo mine; exit; }
age=$(($(date +%s) - $(stat -c %Y -- "$1" 2>/dev/null || date +%s)))
# Of several that find it stale one can move it away.
[ "$age" -gt "$2" ] && mv -- "$1" "$1.$$" 2>/dev/null && rmdir -- "$1.$$" && mkdir -- "$1" &&
  echo mine
exit 0
"""


async def upload_model(
    transport: Transport, profile: ClusterProfile, model: str, folder: Path
) -> str:
    """Copy a snapshot to ``<models.dir>/<org>--<name>/<commit>``; a second call finds it.

    The files go to a folder beside it, each is compared by its SHA-256, and one rename makes the
    model appear, so that no run ever sees half of one. Of several runs one copies, and the others
    wait for it. What a cut copy left is used again where its checksum agrees.

    Args:
        transport: connection to the login node.
        profile: the cluster.
        model: Hub id.
        folder: the snapshot, named by its commit.

    Raises:
        UserError: the disk has no room for it, or a file came over changed twice.
        TransportError: the connection failed; calling again goes on.
    """
    target = PurePosixPath(profile.models.dir) / model.replace("/", "--") / folder.name
    files = await asyncio.to_thread(_files, folder)
    lock = target.with_name(f"{target.name}.lock")
    while not await transport.exists(target):
        taken = await run_checked(
            transport, ["sh", "-c", _LOCK, "lock", str(lock), str(LOCK_STALE_S)], "Locking"
        )
        if "mine" in taken:
            try:
                # Another run may have ended its copy since the look above.
                if not await transport.exists(target):
                    await _copy(transport, target, lock, files)
            finally:
                await run_checked(transport, ["rmdir", "--", str(lock)], "Unlocking")
        else:
            await asyncio.sleep(WAIT_S)
    return str(target)


def _files(folder: Path) -> dict[str, Path]:
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in found}


async def _copy(
    transport: Transport, target: PurePosixPath, lock: PurePosixPath, files: Mapping[str, Path]
) -> None:
    part = target.with_name(f"{target.name}.part")
    folders = sorted({str((part / name).parent) for name in files})
    await run_checked(transport, ["mkdir", "-p", "--", *folders], "Making folders")
    there = await _checksums(transport, part)
    missing = {
        name: file
        for name, file in files.items()
        if there.get(name) != await asyncio.to_thread(_sha256, file)
    }
    await _check_room(transport, part, sum(file.stat().st_size for file in missing.values()))
    for name, file in missing.items():
        await transport.put_file(part / name, file)
        await run_checked(transport, ["touch", "--", str(lock)], "Holding the lock")
    there = await _checksums(transport, part)
    for name, file in files.items():
        if there.get(name) != await asyncio.to_thread(_sha256, file):
            raise UserError(
                f"{part / name} differs from what was sent; look at the file system and try again."
            )
    await run_checked(transport, ["mv", "--", str(part), str(target)], "Renaming")


async def _checksums(transport: Transport, folder: PurePosixPath) -> dict[str, str]:
    script = 'cd -- "$1" && find . -type f -exec sha256sum {} +'
    listed = await transport.run(
        ["sh", "-c", script, "sums", str(folder)], timeout_s=3600.0, idempotent=True
    )
    pairs = (line.split("  ./", 1) for line in listed.stdout.splitlines() if "  ./" in line)
    return {name: digest for digest, name in pairs}


async def _check_room(transport: Transport, folder: PurePosixPath, needed: int) -> None:
    listed = await run_checked(transport, ["df", "-Pk", "--", str(folder)], "Asking for room")
    kilobytes = free_of(listed.splitlines()[-1])
    if kilobytes is not None and kilobytes * 1024 < needed:
        raise UserError(
            f"The model takes {needed / _GIB:.1f} GiB and {folder} has "
            f"{kilobytes * 1024 / _GIB:.1f} GiB free; free some, for example with "
            "`nightshard models clean`."
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
