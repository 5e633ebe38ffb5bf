"""The transport over a login that a person holds open with OpenSSH, for two-factor sites."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self, cast

from nightshard.clusters.errors import LoginError, LoginFailure, TransportError
from nightshard.clusters.held_socket import HeldSocket
from nightshard.clusters.login_errors import sentence
from nightshard.clusters.openssh_files import CREATE, GET, MISSING, PUT, TAKEN, OpenSshFiles
from nightshard.clusters.remote_disk import full_disk, full_disk_in_words
from nightshard.clusters.transfer import get_whole, part_of, put_whole
from nightshard.clusters.transport import COMMAND_TIMEOUT_S, CommandResult, shell_line

MAX_SESSIONS = 4
"""Concurrent sessions; sshd's own MaxSessions is 10 by default, and the person may need some."""

FILE_TIMEOUT_S = 1800.0
STALL_TIMEOUT_S = 300.0
_SSH_FAILED = 255
_WINDOW = 256 * 1024

# ssh's own 255 means that it failed, and a command may end with 255 too. So the command's status
# comes back on a line of its own that ssh cannot write. $SHELL, because a command without this
# transport would run in the login shell as well.
_REPORT = '"${SHELL:-sh}" -c "$1"; s=$?; printf "\\n%s %s\\n" "$2" "$s" >&2; exit "$s"'

Feed = Callable[[], AsyncGenerator[bytes, None]]
Sink = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class BytesResult:
    """What a remote command answered, with its output as bytes."""

    stdout: bytes
    stderr: str
    exit_status: int


class OpenSshTransport:
    """Commands and files over a ControlMaster socket; it never logs in by itself.

    Args:
        socket: the held login.
        max_sessions: cap on concurrent sessions.
    """

    def __init__(self, socket: HeldSocket, max_sessions: int = MAX_SESSIONS) -> None:
        self._socket = socket
        self._sessions = asyncio.Semaphore(max_sessions)
        self._files = OpenSshFiles(self)

    async def run(
        self,
        command: Sequence[str] | str,
        *,
        stdin: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        idempotent: bool = False,
    ) -> CommandResult:
        """See :meth:`Transport.run`; no exit status in the reply is an error, never a success."""
        data = (stdin or "").encode()
        result = await self.run_bytes(
            command, feed=_once(data), timeout_s=timeout_s, idempotent=idempotent
        )
        stdout = result.stdout.decode(errors="replace")
        return CommandResult(stdout, result.stderr, result.exit_status)

    async def put_bytes(self, path: PurePosixPath, data: bytes) -> None:
        """See :meth:`Transport.put_bytes`."""
        arguments = (str(part_of(path)), str(path), str(len(data)))
        await self.checked(PUT, arguments, f"writing {path}", path, feed=_once(data))

    async def put_file(self, path: PurePosixPath, local: Path) -> None:
        """See :meth:`Transport.put_file`; a large file is resumed and checked."""
        await put_whole(self, self._files, path, local)

    async def create_bytes(self, path: PurePosixPath, data: bytes) -> bool:
        """See :meth:`Transport.create_bytes`."""
        arguments = (str(part_of(path)), str(path), str(len(data)))
        result = await self.checked(
            CREATE,
            arguments,
            f"creating {path}",
            path,
            feed=_once(data),
            expected=(0, TAKEN),
            idempotent=False,
        )
        return result.exit_status == 0

    async def get_bytes(self, path: PurePosixPath) -> bytes | None:
        """See :meth:`Transport.get_bytes`."""
        result = await self.checked(
            GET, (str(path),), f"reading {path}", path, expected=(0, MISSING)
        )
        return result.stdout if result.exit_status == 0 else None

    async def get_file(self, path: PurePosixPath, local: Path) -> None:
        """See :meth:`Transport.get_file`; a large file is resumed and checked."""
        await get_whole(self, self._files, path, local)

    async def exists(self, path: PurePosixPath) -> bool:
        """See :meth:`Transport.exists`."""
        result = await self.run(["test", "-e", str(path)], idempotent=True)
        if result.exit_status > 1:
            detail = " ".join(result.stderr.split())
            raise TransportError(f"looking for {path} on the cluster failed: {detail}.")
        return result.ok

    async def close(self) -> None:
        """Nothing: the login is the person's, who may need it still."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def checked(
        self,
        script: str,
        arguments: Sequence[str],
        what: str,
        path: PurePosixPath,
        *,
        feed: Feed | None = None,
        sink: Sink | None = None,
        expected: Sequence[int] = (0,),
        timeout_s: float | None = FILE_TIMEOUT_S,
        idempotent: bool = True,
    ) -> BytesResult:
        """Run a shell script on the cluster that works on one file.

        Args:
            script: for ``sh -c``; it finds the arguments as ``$1`` and so on.
            arguments: any strings.
            what: begins the sentence on a failure.
            path: the file; its folder is named where the disk is full.
            feed: gives the standard input, again for each try.
            sink: takes the standard output in pieces instead of the result.
            expected: exit statuses that are no failure.
            timeout_s: for the whole of it; None for as long as bytes flow.
            idempotent: whether it is run once more after the connection dropped.

        Raises:
            RemoteDiskFullError: no room is left.
            TransportError: another exit status, or the outcome is not known.
        """
        result = await self.run_bytes(
            ["sh", "-c", script, "sh", *arguments],
            feed=feed,
            sink=sink,
            timeout_s=timeout_s,
            idempotent=idempotent,
        )
        if result.exit_status in expected:
            return result
        full = full_disk_in_words(result.stderr, path.parent)
        if full is not None:
            raise await full_disk(self, path.parent, 1) or full
        detail = " ".join(result.stderr.split()) or f"exit status {result.exit_status}"
        raise TransportError(f"{what} on the cluster failed: {detail}.")

    async def run_bytes(
        self,
        command: Sequence[str] | str,
        *,
        feed: Feed | None = None,
        sink: Sink | None = None,
        timeout_s: float | None = COMMAND_TIMEOUT_S,
        idempotent: bool = False,
    ) -> BytesResult:
        """Run a command; see :meth:`checked` for the arguments."""
        async with self._sessions:
            for last in (not idempotent, True):
                # Before the command, so that a login that is gone is told from a lost reply.
                await self._socket.check()
                try:
                    async with asyncio.timeout(timeout_s):
                        return await self._run_once(shell_line(command), feed, sink)
                except TimeoutError:
                    limit = timeout_s or STALL_TIMEOUT_S
                    raise TransportError(
                        f"The cluster did not answer within {limit:g} s."
                    ) from None
                except TransportError:
                    if last:
                        raise
        raise AssertionError  # the loop returns or raises

    async def _run_once(self, line: str, feed: Feed | None, sink: Sink | None) -> BytesResult:
        nonce = f"nightshard-status-{secrets.token_hex(8)}"
        remote = shell_line(["exec", "sh", "-c", _REPORT, "sh", line, nonce])
        process = await asyncio.create_subprocess_exec(
            *self._socket.arguments("--", self._socket.destination, remote),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        output = bytearray()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pour(feed, process.stdin))
                group.create_task(
                    _drain(process.stdout, sink or output.extend, STALL_TIMEOUT_S if sink else None)
                )
                errors = group.create_task(process.stderr.read())
            status = await process.wait()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            # wait() returns once the pipes are closed as well, and a pipe that nobody reads, or
            # that the person's ssh still holds, would not be: closing the transport closes them.
            cast("Any", process)._transport.close()
            await process.wait()
        stderr = errors.result().decode(errors="replace")
        return self._answer(bytes(output), stderr, status, nonce)

    def _answer(self, stdout: bytes, stderr: str, status: int, nonce: str) -> BytesResult:
        head, found, tail = stderr.rpartition(f"\n{nonce} ")
        number = tail.strip()
        if found and number.isdigit():
            return BytesResult(stdout, head, int(number))
        said = " ".join(stderr.split())
        if 0 <= status < _SSH_FAILED:
            # The login node took the session and ran something else than the command.
            failure = LoginFailure.MAINTENANCE
            words = said or " ".join(stdout.decode(errors="replace").split())
            raise LoginError(failure, sentence(failure, self._socket.endpoint, site_words=words))
        detail = f": {said.rstrip('.')}" if said else ""
        raise TransportError(
            f"The connection closed before the remote command reported its end{detail}."
        )


def _once(data: bytes) -> Feed:
    async def feed() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(data), _WINDOW):
            yield data[start : start + _WINDOW]

    return feed


async def _pour(feed: Feed | None, stdin: asyncio.StreamWriter) -> None:
    # A command that reads no input, or failed early, closes its end.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if feed is not None:
            async with contextlib.aclosing(feed()) as pieces:
                async for piece in pieces:
                    stdin.write(piece)
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


async def _drain(stdout: asyncio.StreamReader, sink: Sink, stall_s: float | None) -> None:
    while True:
        async with asyncio.timeout(stall_s):
            piece = await stdout.read(_WINDOW)
        if not piece:
            return
        sink(piece)
