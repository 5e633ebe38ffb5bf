"""A TCP proxy that fails on command, to stand between a client and a real sshd."""

import asyncio
import contextlib
import socket
import struct
from typing import Literal, Self

Direction = Literal["up", "down"]
"""``up`` is from the client to the server, as in an upload."""

CHUNK = 16 * 1024


class _Link:
    """One client's connection and the one that was opened for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = (client, server)

    def abort(self) -> None:
        # RST, as from a firewall or a host that went away: no goodbye on either side.
        linger = struct.pack("ii", 1, 0)
        for writer in self.writers:
            link: socket.socket | None = writer.get_extra_info("socket")
            if link is not None and not writer.transport.is_closing():
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


class FaultyProxy:
    """Forwards a port on the loopback until it is told not to.

    Use it as an asynchronous context manager; all methods act on the event loop it was entered in,
    and at once.

    Attributes:
        host: where clients connect.
        port: where clients connect; it stays the same while connections are refused.
        accepted: connections that clients have made so far.
        cuts: connections that :meth:`cut_after` has cut so far.
        passed: bytes that went through so far in each direction.
    """

    host = "127.0.0.1"

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        # It only holds the port, so that nobody else gets it while connections are refused.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind((self.host, 0))
        self.port: int = self._holder.getsockname()[1]
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flow = asyncio.Event()
        self._flow.set()
        self._budget: dict[Direction, int | None] = {"up": None, "down": None}
        self._cut = asyncio.Event()
        self._then_refuse = False
        self.accepted = 0
        self.cuts = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._holder.close()

    async def accept(self) -> None:
        """Let connections in, and bytes through, again."""
        self._flow.set()
        if self._listener is None:
            listening = socket.socket()
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            self._listener = await asyncio.start_server(self._serve, sock=listening)

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def cut_all(self) -> None:
        """Reset every connection that is open; new ones are let in."""
        for link in list(self._links):
            link.abort()

    def cut_after(
        self, count: int, direction: Direction = "up", *, then_refuse: bool = False
    ) -> None:
        """Reset the connection over which ``count`` more bytes have gone in this direction.

        The bytes of all connections are counted together, and the cut happens once. With
        ``then_refuse`` no client can connect again at once.
        """
        self._budget[direction] = count
        self._then_refuse = then_refuse
        self._cut.clear()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    async def was_cut(self) -> None:
        """Wait until :meth:`cut_after` has cut."""
        await self._cut.wait()

    def blackhole(self) -> None:
        """Let connections in, and no byte through in either direction, until :meth:`accept`."""
        self._flow.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, back)
        self._links.add(link)
        pumps = {
            asyncio.create_task(self._pump(link, reader, back, "up")),
            asyncio.create_task(self._pump(link, there, writer, "down")),
        }
        self._tasks |= pumps
        try:
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._tasks -= pumps
            self._links.discard(link)
            link.abort()

    async def _pump(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flow.wait()
                budget = self._budget[direction]
                if budget is not None:
                    data, self._budget[direction] = data[:budget], max(budget - len(data), 0)
                writer.write(data)
                await writer.drain()
                self.passed[direction] += len(data)
                if self._budget[direction] == 0:
                    self._budget[direction] = None
                    self.cuts += 1
                    self._cut.set()
                    if self._then_refuse:
                        self.refuse()
                    link.abort()
                    return
            writer.write_eof()
            return
        link.abort()
