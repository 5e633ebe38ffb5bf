"""A line that breaks says nothing about a job."""

import asyncio
from pathlib import Path

import asyncssh
import pytest
from support.faults.audit import attempts_of, audit
from support.faults.plugin import Reliability
from support.faults.run import Lab
from support.faults.site import until

from nightshard.clusters import login
from nightshard.clusters.collecting import collect_run
from nightshard.clusters.errors import LoginError, TransportError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.mark.fault("The line to the cluster", "the connection is cut in the middle of a poll")
async def test_cut_in_a_poll(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=8)
    following = run.begin()
    await run.answered(0, 2)
    lab.proxy.cut_after(200, "down")
    await lab.proxy.was_cut()
    await following
    assert len(await attempts_of(run)) == 1
    reliability.write(
        happened="connects anew and asks again; the job does not notice",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault("The line to the cluster", "the login node refuses connections for a while")
async def test_login_node_refuses(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=8)
    following = run.begin()
    await run.answered(0, 2)
    lab.proxy.refuse()
    lab.proxy.cut_all()
    said = await run.hear("asking again")
    await lab.proxy.accept()
    await following
    assert len(await attempts_of(run)) == 1
    reliability.write(
        happened="asks at growing intervals until it answers; the job does not notice",
        counts=await audit(run),
        message=said,
    )


@pytest.mark.fault(
    "The line to the cluster", "the line goes silent, without an end of the connection"
)
async def test_silent_line(
    lab: Lab, reliability: Reliability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "KEEPALIVE_S", 0.5)  # a user waits for 30 s of silence, three times
    run = await lab.stage(rows=8)
    following = run.begin()
    await run.answered(0, 2)
    before = lab.proxy.accepted
    lab.proxy.blackhole()
    await until(lambda: lab.proxy.accepted > before, "the dead line was given up")
    await lab.proxy.accept()
    await following
    reliability.write(
        happened="keep-alives without an answer end the dead connection, a new one is made",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault("The line to the cluster", "the connection is cut while files are uploaded")
async def test_cut_in_an_upload(lab: Lab, reliability: Reliability) -> None:
    lab.proxy.cut_after(20_000, "up")
    run = await lab.stage(shards=3, rows=800, pace=0.0, flush_rows=800, transport=lab.transport())
    assert lab.proxy.cuts == 1
    await run.follow()
    reliability.write(
        happened="connects anew and uploads what is missing",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault("The line to the cluster", "the connection is cut while answers are downloaded")
async def test_cut_in_a_download(lab: Lab, reliability: Reliability, tmp_path: Path) -> None:
    run = await lab.stage(shards=3, rows=800, pace=0.0, flush_rows=800)
    await run.follow()
    async with lab.transport() as transport:
        lab.proxy.cut_after(20_000, "down")
        shards = await collect_run(transport, run.layout, 3, tmp_path / "answers")
    assert lab.proxy.cuts == 1
    assert len(shards) == 3
    reliability.write(
        happened="connects anew and fetches again; each file is checked against its checksum",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault("The line to the cluster", "the login node is gone while answers are downloaded")
async def test_gone_in_a_download(lab: Lab, reliability: Reliability, tmp_path: Path) -> None:
    run = await lab.stage(shards=3, rows=800, pace=0.0, flush_rows=800)
    await run.follow()
    async with lab.transport() as transport:
        lab.proxy.cut_after(20_000, "down")
        collecting = asyncio.create_task(
            collect_run(transport, run.layout, 3, tmp_path / "answers")
        )
        await lab.proxy.was_cut()
        lab.proxy.refuse()
        with pytest.raises((TransportError, LoginError)) as caught:
            await collecting
    await lab.proxy.accept()
    async with lab.transport() as transport:
        await collect_run(transport, run.layout, 3, tmp_path / "answers")
    reliability.write(
        happened="the task fails with the sentence; its next try fetches what is missing",
        counts=await audit(run),
        message=str(caught.value),
    )


@pytest.mark.fault("The line to the cluster", "the login node's host key changes")
async def test_host_key_changed(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=8)
    following = run.begin()
    await run.answered(0, 2)
    known = lab.site.info.host_key
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    lab.trust(" ".join(other.split()[:2]))  # to a client it is the same who of the two changed
    lab.proxy.cut_all()
    with pytest.raises(LoginError) as caught:
        await following
    assert run.jobs()

    lab.trust(known)
    await run.follow(try_number=2)

    assert [one.attempt for one in await attempts_of(run)] == [1]
    reliability.write(
        happened="the task stops at once, the job goes on; once the key is checked and mended, the "
        "next try finds the job and finishes",
        counts=await audit(run),
        message=str(caught.value),
    )
