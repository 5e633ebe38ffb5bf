"""The proxy with which other tests break connections breaks them as it says."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.faulty_proxy import FaultyProxy

pytestmark = [pytest.mark.unit, pytest.mark.timeout(30)]


@pytest.fixture
async def proxy() -> AsyncIterator[FaultyProxy]:
    """In front of a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                writer.write(data)
            writer.close()
        except OSError:
            pass

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultyProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as made:
        yield made


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, proxy: FaultyProxy) -> "Client":
        return cls(*await asyncio.open_connection(proxy.host, proxy.port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def said(self, data: bytes) -> bytes:
        self.send(data)
        return await self.reader.readexactly(len(data))


async def test_bytes_pass(proxy: FaultyProxy) -> None:
    client = await Client.to(proxy)
    assert await client.said(b"x" * 100_000) == b"x" * 100_000
    client.writer.write_eof()
    assert await client.reader.read() == b""
    assert (proxy.accepted, proxy.passed) == (1, {"up": 100_000, "down": 100_000})
    client.writer.close()


async def test_all_connections_are_reset_and_new_ones_let_in(proxy: FaultyProxy) -> None:
    first, second = await Client.to(proxy), await Client.to(proxy)
    await first.said(b"a")
    await second.said(b"b")
    proxy.cut_all()
    for client in (first, second):
        with pytest.raises(ConnectionResetError):
            await client.said(b"c")
    third = await Client.to(proxy)
    assert await third.said(b"d") == b"d"
    third.writer.close()


async def test_connections_are_refused_until_let_in(proxy: FaultyProxy) -> None:
    early = await Client.to(proxy)
    await early.said(b"a")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await Client.to(proxy)
    assert await early.said(b"b") == b"b"
    await proxy.accept()
    late = await Client.to(proxy)
    assert await late.said(b"c") == b"c"
    for client in (early, late):
        client.writer.close()


@pytest.mark.parametrize("count", [1, 1000, 50_000])
async def test_it_cuts_after_so_many_bytes_up(proxy: FaultyProxy, count: int) -> None:
    client = await Client.to(proxy)
    proxy.cut_after(count, "up")
    client.send(b"x" * 100_000)
    await proxy.was_cut()
    assert (proxy.passed["up"], proxy.cuts) == (count, 1)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.reader.readexactly(100_000)
    again = await Client.to(proxy)
    assert await again.said(b"x" * 100_000) == b"x" * 100_000
    again.writer.close()


async def test_it_cuts_after_so_many_bytes_down(proxy: FaultyProxy) -> None:
    client = await Client.to(proxy)
    proxy.cut_after(5000, "down")
    client.send(b"x" * 100_000)
    await proxy.was_cut()
    assert proxy.passed["down"] == 5000


async def test_nothing_passes_a_black_hole(proxy: FaultyProxy) -> None:
    client = await Client.to(proxy)
    await client.said(b"a")
    proxy.blackhole()
    client.send(b"b")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.reader.read(1)
    late = await Client.to(proxy)
    await proxy.accept()
    assert await client.reader.readexactly(1) == b"b"
    assert await late.said(b"c") == b"c"
    for each in (client, late):
        each.writer.close()
