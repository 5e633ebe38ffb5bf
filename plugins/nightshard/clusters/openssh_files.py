"""Files through shell commands, where a session over OpenSSH is all there is.

Each script checks the number of bytes it got: a cut connection ends its standard input in the same
way as a complete one.
"""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nightshard.clusters.errors import TransportError
from nightshard.clusters.transfer import CHUNK, read_at, remote_sha256, resume_at, write_at

if TYPE_CHECKING:
    from nightshard.clusters.openssh import OpenSshTransport

MISSING = 66
TAKEN = 67
CUT = 68

_RECEIVE = """
LC_ALL=C; export LC_ALL
trap 'rm -f "$1"' EXIT
cat > "$1" || exit 1
[ "$(wc -c < "$1")" -eq "$3" ] || { echo "the connection was cut" >&2; exit 1; }
"""

PUT = f'{_RECEIVE}\nmv -f -T "$1" "$2"'
"""Arguments: temporary name, name, number of bytes."""

# ln fails where the name exists, and where the file system has no hard links; set -C opens with
# O_EXCL.
CREATE = f"""{_RECEIVE}
ln "$1" "$2" 2>/dev/null && exit 0
[ -e "$2" ] || [ -L "$2" ] && exit {TAKEN}
set -C
{{ cat "$1" > "$2"; }} 2>/dev/null && exit 0
[ -e "$2" ] && exit {TAKEN}
echo "it cannot be created" >&2
exit 1
"""
"""Arguments as of PUT."""

# Another transfer may move a file at any moment, so it is asked for when a step has failed, not
# before.
_OR_MISSING = f'|| {{ [ -e "$1" ] || exit {MISSING}; exit 1; }}'
GET = f'cat < "$1" {_OR_MISSING}'
_SIZE = f'wc -c < "$1" {_OR_MISSING}'
RENAME = f'mv -f -T "$1" "$2" {_OR_MISSING}'
_REMOVE = 'rm -f "$1"'
_READ_FROM = 'tail -c "+$2" < "$1"'
# Measured by its descriptor, since it may have another name by then.
_WRITE_FROM = f"""
LC_ALL=C; export LC_ALL
exec 3<> "$1" || exit 1
dd bs={CHUNK} seek="$2" iflag=fullblock conv=notrunc status=none >&3 || exit 1
[ "$(stat -L -c %s /dev/fd/3)" -ge "$3" ] || {{ echo "the connection was cut" >&2; exit {CUT}; }}
"""
"""Arguments: name, chunk to begin at, size at the end."""


class OpenSshFiles:
    """See :class:`~nightshard.clusters.transfer.RemoteFiles`."""

    def __init__(self, transport: "OpenSshTransport") -> None:
        self._transport = transport

    async def size(self, path: PurePosixPath) -> int | None:
        """See :meth:`RemoteFiles.size`."""
        what = f"looking for {path}"
        result = await self._transport.checked(
            _SIZE, (str(path),), what, path, expected=(0, MISSING)
        )
        return int(result.stdout) if result.exit_status == 0 else None

    async def sha256(self, path: PurePosixPath, size: int) -> str | None:
        """See :meth:`RemoteFiles.sha256`."""
        return await remote_sha256(self._transport, path, size)

    async def write_from(self, path: PurePosixPath, local: Path, start: int) -> None:
        """See :meth:`RemoteFiles.write_from`."""
        total = (await asyncio.to_thread(local.stat)).st_size
        try:
            await self._write_once(path, local, start, total)
        except TransportError:
            # A try from the beginning may be mending a damaged part, whose length says nothing.
            again = resume_at(await self.size(path), total) if start else 0
            await self._write_once(path, local, again, total)

    async def _write_once(self, path: PurePosixPath, local: Path, start: int, total: int) -> None:
        async def feed() -> AsyncGenerator[bytes, None]:
            for offset in range(start, total, CHUNK):
                yield await asyncio.to_thread(read_at, local, offset, CHUNK)

        arguments = (str(path), str(start // CHUNK), str(total))
        what = f"writing {path}"
        await self._transport.checked(
            _WRITE_FROM, arguments, what, path, feed=feed, timeout_s=None, idempotent=False
        )

    async def read_into(self, path: PurePosixPath, local: Path, start: int) -> None:
        """See :meth:`RemoteFiles.read_into`."""
        done = start

        def keep(piece: bytes) -> None:
            nonlocal done
            write_at(local, done, piece)
            done += len(piece)

        for last in (False, True):
            arguments = (str(path), str(done + 1))
            try:
                await self._transport.checked(
                    _READ_FROM,
                    arguments,
                    f"reading {path}",
                    path,
                    sink=keep,
                    timeout_s=None,
                    idempotent=False,
                )
            except TransportError:
                if last:
                    raise
            else:
                return

    async def rename(self, path: PurePosixPath, new: PurePosixPath) -> bool:
        """See :meth:`RemoteFiles.rename`."""
        arguments = (str(path), str(new))
        what = f"writing {new}"
        result = await self._transport.checked(RENAME, arguments, what, new, expected=(0, MISSING))
        return result.exit_status == 0

    async def remove(self, path: PurePosixPath) -> None:
        """See :meth:`RemoteFiles.remove`."""
        await self._transport.checked(_REMOVE, (str(path),), f"removing {path}", path)
