"""The transport over one asyncssh connection."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import asyncssh

from nightshard.clusters.errors import LoginError, LoginFailure, TransportError
from nightshard.clusters.login import Connect, connector
from nightshard.clusters.login_errors import Endpoint, login_error, sentence, words
from nightshard.clusters.remote_disk import named_if_full
from nightshard.clusters.sftp_files import SftpFiles, create_exclusively, renamed_into_place
from nightshard.clusters.transfer import get_whole, put_whole
from nightshard.clusters.transport import COMMAND_TIMEOUT_S, CommandResult, shell_line

__all__ = ["Endpoint", "SshTransport", "connector"]

MAX_SESSIONS = 4
"""Concurrent sessions on one connection; sshd's own MaxSessions is 10 by default."""

TRANSFER_TIMEOUT_S = 1800.0
NOLOGIN_STATUS = 254
_BROKEN = (
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    OSError,
    asyncssh.SFTPConnectionLost,
)

T = TypeVar("T")


class SshTransport:
    """Commands and files over one connection that is made when first needed.

    Args:
        connect: opens an authenticated connection; may raise LoginError or asyncssh's errors.
        endpoint: lets the sentence on a failed login name the host.
        max_sessions: cap on concurrent sessions.
    """

    def __init__(
        self, connect: Connect, endpoint: Endpoint | None = None, max_sessions: int = MAX_SESSIONS
    ) -> None:
        self._connect = connect
        self._endpoint = endpoint
        self._sessions = asyncio.Semaphore(max_sessions)
        self._connecting = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._files = SftpFiles(self, self._transfer)

    async def run(
        self,
        command: Sequence[str] | str,
        *,
        stdin: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        idempotent: bool = False,
    ) -> CommandResult:
        """See :meth:`Transport.run`; no exit status in the reply is an error, never a success."""

        async def once(connection: asyncssh.SSHClientConnection) -> CommandResult:
            process = await connection.create_process(
                shell_line(command),
                # asyncssh sends no end of an empty input, and a command that reads would wait.
                stdin=asyncssh.PIPE if stdin else asyncssh.DEVNULL,
                encoding="utf-8",
                errors="replace",
            )
            try:
                stdout, stderr = await process.communicate(stdin or "")
            finally:
                process.close()
            # asyncssh leaves the status None where the channel closed without one: the command's
            # fate is then unknown, and reading it as 0 would turn a cut line into a success.
            status = process.exit_status
            if status is None or process.exit_signal is not None:
                raise TransportError(_unknown_outcome(process.exit_signal))
            result = CommandResult(_text(stdout), _text(stderr), status)
            if _is_closed_to_users(result):
                failure = LoginFailure.MAINTENANCE
                raise LoginError(
                    failure, sentence(failure, self._endpoint, site_words=result.stderr)
                )
            return result

        return await self._attempt(once, idempotent=idempotent, timeout_s=timeout_s)

    async def put_bytes(self, path: PurePosixPath, data: bytes) -> None:
        """See :meth:`Transport.put_bytes`."""

        async def once(sftp: asyncssh.SFTPClient) -> None:
            async with renamed_into_place(sftp, path) as part, sftp.open(part, "wb") as file:
                await file.write(data)

        async with named_if_full(self, path, len(data)):
            await self._transfer(once, f"writing {path}")

    async def put_file(self, path: PurePosixPath, local: Path) -> None:
        """See :meth:`Transport.put_file`; a large file is resumed and checked."""
        await put_whole(self, self._files, path, local)

    async def create_bytes(self, path: PurePosixPath, data: bytes) -> bool:
        """See :meth:`Transport.create_bytes`."""

        async def once(sftp: asyncssh.SFTPClient) -> bool:
            return await create_exclusively(sftp, path, data)

        async with named_if_full(self, path, len(data)):
            return await self._transfer(once, f"creating {path}", idempotent=False)

    async def get_bytes(self, path: PurePosixPath) -> bytes | None:
        """See :meth:`Transport.get_bytes`."""

        async def once(sftp: asyncssh.SFTPClient) -> bytes | None:
            try:
                async with sftp.open(str(path), "rb") as file:
                    data: Any = await file.read()
                    return bytes(data)
            except asyncssh.SFTPNoSuchFile:
                return None

        return await self._transfer(once, f"reading {path}")

    async def get_file(self, path: PurePosixPath, local: Path) -> None:
        """See :meth:`Transport.get_file`; a large file is resumed and checked."""
        await get_whole(self, self._files, path, local)

    async def exists(self, path: PurePosixPath) -> bool:
        """See :meth:`Transport.exists`."""

        async def once(sftp: asyncssh.SFTPClient) -> bool:
            return await sftp.exists(str(path))

        return await self._transfer(once, f"looking for {path}")

    async def close(self) -> None:
        """See :meth:`Transport.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(OSError, asyncssh.Error):
                await connection.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _transfer(
        self,
        action: Callable[[asyncssh.SFTPClient], Awaitable[T]],
        what: str,
        *,
        idempotent: bool = True,
        timeout_s: float | None = TRANSFER_TIMEOUT_S,
    ) -> T:
        async def once(connection: asyncssh.SSHClientConnection) -> T:
            async with connection.start_sftp_client() as sftp:
                return await action(sftp)

        try:
            return await self._attempt(once, idempotent=idempotent, timeout_s=timeout_s)
        except asyncssh.SFTPError as error:
            raise TransportError(f"{what} on the cluster failed: {error.reason}.") from error

    async def _attempt(
        self,
        action: Callable[[asyncssh.SSHClientConnection], Awaitable[T]],
        *,
        idempotent: bool,
        timeout_s: float | None,
    ) -> T:
        async with self._sessions:
            for last in (not idempotent, True):
                connection = await self._connected()
                try:
                    async with asyncio.timeout(timeout_s):
                        return await action(connection)
                except TimeoutError:
                    raise TransportError(
                        f"The cluster did not answer within {timeout_s:g} s."
                    ) from None
                except (TransportError, *_BROKEN) as error:
                    await self._forget(connection, error)
                    if last:
                        if isinstance(error, TransportError):
                            raise
                        raise TransportError(
                            f"The connection to the cluster broke: {words(error)}."
                        ) from error
        raise AssertionError  # the loop returns or raises

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                try:
                    self._connection = await self._connect()
                except Exception as error:
                    raise login_error(error, self._endpoint) from error
            return self._connection

    async def _forget(self, connection: asyncssh.SSHClientConnection, error: Exception) -> None:
        # Others share the connection: one refused or lost channel is no reason to cut theirs.
        one_channel = isinstance(error, TransportError | asyncssh.ChannelOpenError)
        if self._connection is connection and (connection.is_closed() or not one_channel):
            await self.close()


def _unknown_outcome(exit_signal: Any) -> str:
    if exit_signal is not None:
        return f"The remote command was killed by signal {exit_signal[0]}."
    return "The connection closed before the remote command reported its end."


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _is_closed_to_users(result: CommandResult) -> bool:
    # sshd ends a session with 254 and the text of /etc/nologin instead of running its command.
    return result.exit_status == NOLOGIN_STATUS and not result.stdout and bool(result.stderr)
