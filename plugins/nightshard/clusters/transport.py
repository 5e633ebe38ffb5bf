"""What the rest of this room needs of a connection, and nothing of how it is made."""

import asyncio
import shlex
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Self, TypeVar

from nightshard.clusters.errors import TransportError

T = TypeVar("T")

COMMAND_TIMEOUT_S = 120.0

COMMAND_NOT_FOUND = 127
"""Exit status of a POSIX shell for a program that does not exist."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a remote command answered; it exists only where the command is known to have ended."""

    stdout: str
    stderr: str
    exit_status: int

    @property
    def ok(self) -> bool:
        """Whether the command ended with 0."""
        return self.exit_status == 0


class Transport(Protocol):
    """Commands and files on one cluster.

    Every method raises :class:`TransportError` when the outcome is not known (a dropped
    connection, a time-out), and :class:`~nightshard.clusters.errors.LoginError` when no connection
    can be made.
    """

    async def run(
        self,
        command: Sequence[str] | str,
        *,
        stdin: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        idempotent: bool = False,
    ) -> CommandResult:
        """Run a command; a sequence is quoted, a string is a shell line as it is.

        With ``idempotent`` it is run once more after the connection dropped.
        """
        ...

    async def put_bytes(self, path: PurePosixPath, data: bytes) -> None:
        """Write a file in one step: under a temporary name, then renamed over the old one."""
        ...

    async def put_file(self, path: PurePosixPath, local: Path) -> None:
        """Copy a local file in one step."""
        ...

    async def create_bytes(self, path: PurePosixPath, data: bytes) -> bool:
        """Write a file only where none exists; False where one does."""
        ...

    async def get_bytes(self, path: PurePosixPath) -> bytes | None:
        """Read a file; None where it does not exist."""
        ...

    async def get_file(self, path: PurePosixPath, local: Path) -> None:
        """Copy a remote file to a local one, in one step."""
        ...

    async def exists(self, path: PurePosixPath) -> bool:
        """Whether there is something at this path."""
        ...

    async def close(self) -> None:
        """Hang up; the next call connects again."""
        ...

    async def __aenter__(self) -> Self:
        """Return itself."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        ...


def shell_line(command: Sequence[str] | str) -> str:
    """Return the line for the remote shell: a sequence is quoted, a string taken as it is."""
    return command if isinstance(command, str) else shlex.join(command)


async def run_checked(transport: Transport, command: Sequence[str] | str, what: str) -> str:
    """Run an idempotent command that has no reason to fail; return its standard output.

    Raises:
        TransportError: it failed all the same; the message begins with ``what``.
    """
    result = await transport.run(command, idempotent=True)
    if not result.ok:
        detail = " ".join(result.stderr.split()) or f"exit status {result.exit_status}"
        raise TransportError(f"{what} failed on the cluster: {detail}.")
    return result.stdout


async def all_of(actions: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run actions at once and return their results in order.

    The first failure stops the others and is raised as it is, not in a group, so that callers can
    catch it by its class.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(action) for action in actions]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
