"""Full disks and damaged files: what is not whole is made again, what is whole is kept."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faults.audit import attempts_of, audit, ends
from support.faults.disks import Disk, small_disk
from support.faults.plugin import Reliability
from support.faults.run import FaultRun, Lab
from support.faults.site import frozen, until

from nightshard.clusters.collecting import collect_run
from nightshard.clusters.errors import CorruptOutputError
from nightshard.clusters.staging import preflight
from nightshard.core.errors import UserError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture
def disk(lab: Lab) -> Iterator[Disk]:
    with small_disk(lab.site) as made:
        yield made


async def _refusal(lab: Lab, run: FaultRun) -> str:
    async with lab.transport(direct=True) as transport:
        with pytest.raises(UserError) as caught:
            await preflight(transport, run.profile, run.layout, 1 << 30)
    return str(caught.value)


@pytest.mark.fault("Files and disks", "the cluster's disk is full before a run begins")
async def test_disk_full_before(lab: Lab, disk: Disk, reliability: Reliability) -> None:
    run = await lab.stage(rows=1, **disk.changes)
    disk.fill()
    said = await _refusal(lab, run)
    disk.free()
    await run.follow()
    reliability.write(
        happened="nothing is staged; begun again once there is room",
        counts=await audit(run),
        message=said,
    )


@pytest.mark.fault("Files and disks", "the cluster's disk has no inodes left before a run begins")
async def test_no_inodes_before(lab: Lab, disk: Disk, reliability: Reliability) -> None:
    run = await lab.stage(rows=1, **disk.changes)
    disk.use_up_inodes()
    said = await _refusal(lab, run)
    disk.free()
    await run.follow()
    reliability.write(
        happened="nothing is staged; begun again once there is room",
        counts=await audit(run),
        message=said,
    )


@pytest.mark.fault("Files and disks", "the cluster's disk fills up while a shard works")
async def test_disk_full_at_work(lab: Lab, disk: Disk, reliability: Reliability) -> None:
    await _full_at_work(lab, disk, disk.fill, reliability)


@pytest.mark.fault("Files and disks", "the cluster's inodes run out while a shard works")
async def test_no_inodes_at_work(lab: Lab, disk: Disk, reliability: Reliability) -> None:
    await _full_at_work(lab, disk, disk.use_up_inodes, reliability)


async def _full_at_work(
    lab: Lab, disk: Disk, use_up: Callable[[], None], reliability: Reliability
) -> None:
    run = await lab.stage(rows=6, **disk.changes)
    following = run.begin()
    await run.answered(0, 2)
    use_up()
    said = await _lost(run, following)
    assert len(run.parts(0)) >= 2
    disk.free()
    await run.follow(try_number=2)
    reliability.write(
        happened="stop; the answers so far are kept, the rest is made once there is room and the "
        "task is cleared",
        counts=await audit(run),
        message=said,
    )


async def _lost(run: FaultRun, following: object) -> str:
    try:
        (stopped,) = await following  # type: ignore[misc]
    except UserError as error:
        return str(error)
    assert not stopped.done
    return f"{stopped.message} … {stopped.log_lines[-1]}"


@pytest.mark.fault("Files and disks", "a part of the answers is torn")
async def test_torn_part(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    worker = await run.working(0, 2)
    worker.send(signal.SIGSTOP)
    await until(lambda: frozen(worker), "the worker stands still")
    part = run.parts(0)[0]
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    worker.send(signal.SIGKILL)
    (outcome,) = await following
    assert "is damaged; its answers are made again" in _log(run, attempt=2)
    reliability.write(
        happened=f"{ends(outcome)}; the torn part's answers are made again",
        counts=await audit(run),
        message=await run.hear("was killed"),
    )


def _log(run: FaultRun, attempt: int) -> str:
    return Path(run.layout.attempt_log(0, attempt)).read_text()


async def _damaged(lab: Lab, run: FaultRun, change: object) -> object:
    """Damage a finished shard before anybody has looked at it."""
    assert callable(change)
    following = run.begin()
    await run.answered(0, 1)
    lab.proxy.refuse()
    lab.proxy.cut_all()
    await run.finished(0)
    change()
    await lab.proxy.accept()
    (outcome,) = await following
    return outcome


@pytest.mark.fault("Files and disks", "the answers' parquet file is truncated")
async def test_truncated_output(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage()

    def truncate() -> None:
        data = run.output(0).read_bytes()
        run.output(0).write_bytes(data[: len(data) // 2])

    outcome = await _damaged(lab, run, truncate)
    reliability.write(
        happened=f"{ends(outcome)}, from the parts",  # type: ignore[arg-type]
        counts=await audit(run),
        message=await run.hear("checksum"),
    )


@pytest.mark.fault("Files and disks", "one bit of the answers' parquet file is wrong")
async def test_wrong_checksum(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage()

    def flip() -> None:
        data = bytearray(run.output(0).read_bytes())
        data[len(data) // 2] ^= 1
        run.output(0).write_bytes(data)

    outcome = await _damaged(lab, run, flip)
    reliability.write(
        happened=f"{ends(outcome)}, from the parts",  # type: ignore[arg-type]
        counts=await audit(run),
        message=await run.hear("checksum"),
    )


@pytest.mark.fault("Files and disks", "the answers are damaged after their shard was done")
async def test_damaged_after_done(lab: Lab, tmp_path: Path, reliability: Reliability) -> None:
    run = await lab.stage()
    await run.follow()
    run.output(0).write_bytes(b"PAR1")
    async with lab.transport() as transport:
        with pytest.raises(CorruptOutputError) as caught:
            await collect_run(transport, run.layout, 1, tmp_path)
    (outcome,) = await run.follow(try_number=2)
    reliability.write(
        happened=f"not collected. {ends(outcome)}, once the shard is cleared",
        counts=await audit(run),
        message=str(caught.value),
    )


@pytest.mark.fault("Files and disks", "the manifest is torn")
async def test_torn_manifest(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage()

    def tear() -> None:
        run.manifest(0).write_text(run.manifest(0).read_text()[:100])

    outcome = await _damaged(lab, run, tear)
    reliability.write(
        happened=f"{ends(outcome)}, from the parts",  # type: ignore[arg-type]
        counts=await audit(run),
        message=await run.hear("manifest cannot be read"),
    )


@pytest.mark.fault("Files and disks", "a manifest of another fingerprint lies there from before")
async def test_stale_manifest(lab: Lab, reliability: Reliability) -> None:
    other = await lab.stage(rows=4, pace=0.0)
    await other.follow()
    run = await lab.stage(rows=4)
    stale = json.loads(other.manifest(0).read_text())
    stale.update(fingerprint="e" * 32, run_key=run.layout.run_key)
    shutil.copy(other.output(0), run.output(0))
    run.manifest(0).write_text(json.dumps(stale))
    await run.follow()
    assert len(await attempts_of(run)) == 1
    reliability.write(
        happened="not taken for this run's; the shard runs and replaces it",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault(
    "Files and disks", "a job is killed while a manifest of another fingerprint lies there"
)
async def test_killed_beside_a_stale_manifest(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    worker = await run.working(0, 2)
    worker.send(signal.SIGSTOP)
    other = await lab.stage(rows=6, pace=0.0)
    await other.follow()
    stale = json.loads(other.manifest(0).read_text())
    stale.update(fingerprint="e" * 32, run_key=run.layout.run_key)
    run.manifest(0).write_text(json.dumps(stale))
    worker.send(signal.SIGKILL)
    (outcome,) = await following
    reliability.write(
        happened=ends(outcome), counts=await audit(run), message=await run.hear("was killed")
    )
