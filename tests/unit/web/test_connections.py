"""The pages keep one connection to a cluster while somebody looks, and then hang up."""

import asyncio
from typing import Any

import pytest

from nightshard.web import clusters
from nightshard.web.clusters import Connections

pytestmark = pytest.mark.unit


async def test_a_connection_is_shared_and_closed_when_nobody_looks(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "IDLE_S", 0.0)
    opened: list[Any] = []
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    monkeypatch.setattr(site.shell, "close", close)
    connections = Connections(lambda profile: opened.append(profile) or site.shell)
    async with connections.to(site.profile), connections.to(site.profile):
        await asyncio.sleep(0)
        assert not closed.is_set()
    await asyncio.wait_for(closed.wait(), 5)
    assert len(opened) == 1
    async with connections.to(site.profile):
        pass
    assert len(opened) == 2


async def test_people_who_look_at_the_same_time_wait_for_one_answer(site: Any) -> None:
    site.submitted()
    connections = Connections(lambda _: site.shell)
    looks = await asyncio.gather(*(connections.look(site.run) for _ in range(20)))
    assert site.shell.commands == 1
    assert all(len(one.looks) == 3 for one in looks)


async def test_a_look_is_taken_anew_after_a_moment(site: Any) -> None:
    now = 0.0
    connections = Connections(lambda _: site.shell, clock=lambda: now)
    await connections.look(site.run)
    site.submitted()
    site.squeue("56_0 RUNNING node1")
    now = clusters.FRESH_S + 1
    look = await connections.look(site.run)
    assert look.looks[0].message == "running on node1"
