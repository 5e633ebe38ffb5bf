"""Everyone in one event loop shares one connection to a cluster."""

import asyncio
from pathlib import PurePosixPath

import pytest

from nightshard.clusters.shared import shared
from nightshard.clusters.transport import CommandResult

pytestmark = pytest.mark.unit


class Made:
    """Counts the transports that were made, and waits for each to be closed."""

    def __init__(self, lab) -> None:  # type: ignore[no-untyped-def]
        self.lab = lab
        self.made = 0
        self.closed = 0
        self.all_closed = asyncio.Event()

    def __call__(self):  # type: ignore[no-untyped-def]
        transport = self.lab.transport(lambda _words, _stdin: CommandResult("hello", "", 0))
        transport.on_close = self._closed
        self.made += 1
        return transport

    def _closed(self) -> None:
        self.closed += 1
        if self.closed == self.made:
            self.all_closed.set()


@pytest.fixture
async def factory(lab) -> Made:  # type: ignore[no-untyped-def]
    return Made(lab)


async def test_many_users_at_once_open_one_transport(factory: Made) -> None:
    start = asyncio.Barrier(128)

    async def user() -> str:
        async with shared("c", factory, idle_s=0) as transport:
            await start.wait()
            return (await transport.run(["hostname"])).stdout

    answers = await asyncio.gather(*(user() for _ in range(128)))
    await factory.all_closed.wait()

    assert set(answers) == {"hello"}
    assert (factory.made, factory.closed) == (1, 1)


async def test_clusters_are_kept_apart(factory: Made) -> None:
    async with shared("a", factory, idle_s=0), shared("b", factory, idle_s=0):
        assert factory.made == 2
    await factory.all_closed.wait()


async def test_one_user_cannot_hang_up_on_another(factory: Made) -> None:
    async with shared("c", factory, idle_s=0) as first:
        async with shared("c", factory, idle_s=0) as second, second:
            await second.put_bytes(PurePosixPath("/x"), b"data")
            await second.close()
        await asyncio.sleep(0)
        assert factory.closed == 0
        assert await first.get_bytes(PurePosixPath("/x")) == b"data"
    await factory.all_closed.wait()


async def test_a_user_who_comes_back_soon_finds_it_open(factory: Made) -> None:
    for _ in range(3):
        async with shared("c", factory, idle_s=60):
            pass
        await asyncio.sleep(0)
    assert (factory.made, factory.closed) == (1, 0)


async def test_a_user_who_comes_late_gets_a_new_one(factory: Made) -> None:
    async with shared("c", factory, idle_s=0):
        pass
    await factory.all_closed.wait()
    async with shared("c", factory, idle_s=0):
        assert factory.made == 2
    await asyncio.sleep(0)


async def test_a_failed_user_gives_it_back_too(factory: Made) -> None:
    with pytest.raises(ZeroDivisionError):
        async with shared("c", factory, idle_s=0):
            raise ZeroDivisionError
    await factory.all_closed.wait()
    assert factory.closed == 1


def test_it_is_closed_where_the_event_loop_ends_first(lab) -> None:  # type: ignore[no-untyped-def]
    async def work() -> Made:
        factory = Made(lab)
        async with shared("c", factory, idle_s=60):
            pass
        return factory

    assert asyncio.run(work()).closed == 1
    assert asyncio.run(work()).made == 1


async def test_a_factory_that_fails_leaves_nothing_behind(factory: Made) -> None:
    def broken():  # type: ignore[no-untyped-def]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with shared("c", broken):
            pass
    async with shared("c", factory, idle_s=0):
        assert factory.made == 1
    await factory.all_closed.wait()
