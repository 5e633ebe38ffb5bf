"""A transport that hands every call to another one."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Self

from nightshard.clusters.transport import COMMAND_TIMEOUT_S, CommandResult, Transport


class DelegatingTransport:
    """Passes every call on to the transport that :meth:`target` names."""

    async def target(self) -> Transport:
        """Return the transport that does the work."""
        raise NotImplementedError

    async def run(
        self,
        command: Sequence[str] | str,
        *,
        stdin: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        idempotent: bool = False,
    ) -> CommandResult:
        """See :meth:`Transport.run`."""
        target = await self.target()
        return await target.run(command, stdin=stdin, timeout_s=timeout_s, idempotent=idempotent)

    async def put_bytes(self, path: PurePosixPath, data: bytes) -> None:
        """See :meth:`Transport.put_bytes`."""
        await (await self.target()).put_bytes(path, data)

    async def put_file(self, path: PurePosixPath, local: Path) -> None:
        """See :meth:`Transport.put_file`."""
        await (await self.target()).put_file(path, local)

    async def create_bytes(self, path: PurePosixPath, data: bytes) -> bool:
        """See :meth:`Transport.create_bytes`."""
        return await (await self.target()).create_bytes(path, data)

    async def get_bytes(self, path: PurePosixPath) -> bytes | None:
        """See :meth:`Transport.get_bytes`."""
        return await (await self.target()).get_bytes(path)

    async def get_file(self, path: PurePosixPath, local: Path) -> None:
        """See :meth:`Transport.get_file`."""
        await (await self.target()).get_file(path, local)

    async def exists(self, path: PurePosixPath) -> bool:
        """See :meth:`Transport.exists`."""
        return await (await self.target()).exists(path)

    async def close(self) -> None:
        """See :meth:`Transport.close`."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class ChosenTransport(DelegatingTransport):
    """A transport whose kind is known only when it is first used.

    Args:
        choose: names the transport; asked again after each hang-up, so that a setting that was
            changed in the meantime is seen.
    """

    def __init__(self, choose: Callable[[], Awaitable[Transport]]) -> None:
        self._choose = choose
        self._chosen: Transport | None = None

    async def target(self) -> Transport:
        """See :meth:`DelegatingTransport.target`."""
        if self._chosen is None:
            chosen = await self._choose()
            # Another caller may have chosen in the meantime; two would mean two logins.
            self._chosen = self._chosen or chosen
        return self._chosen

    async def close(self) -> None:
        """See :meth:`Transport.close`."""
        chosen, self._chosen = self._chosen, None
        if chosen is not None:
            await chosen.close()
