"""Nightshard may end at any moment; it starts again from what lies on the cluster."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from support.faults.audit import attempts_of, audit, ends
from support.faults.plugin import Reliability
from support.faults.run import FaultRun, Lab
from support.faults.site import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


async def _dies(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _file(path: object) -> Path:
    return Path(str(path))


@pytest.mark.fault("Nightshard itself stopped and started", "it ends after the intent is written")
async def test_after_the_intent(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    hold = 'touch "$state/asked"; sleep 1; exit 1'
    with lab.site.shim("sbatch", hold) as state:
        following = run.begin()
        await until((state / "asked").exists, "sbatch was about to run")
        await _dies(following)
    await run.follow()
    reliability.write(
        happened="looked up by name twice, not found, submitted",
        counts=await audit(run),
        message=await run.hear("Submitted attempt 1"),
    )


@pytest.mark.fault("Nightshard itself stopped and started", "it ends between sbatch and its note")
async def test_before_the_note(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    hold = '"$real" "$@" >"$state/reply"; touch "$state/asked"; sleep 1; cat "$state/reply"'
    with lab.site.shim("sbatch", hold) as state:
        following = run.begin()
        await until((state / "asked").exists, "Slurm accepted")
        await _dies(following)
    intent = json.loads(_file(run.shards[0].submission(1).intent).read_text())
    assert intent["job_id"] is None
    await run.follow()
    reliability.write(
        happened="looked up by name, found, adopted",
        counts=await audit(run),
        message=await run.hear("Found attempt 1"),
    )


@pytest.mark.fault("Nightshard itself stopped and started", "it ends while jobs wait in the queue")
async def test_while_waiting(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2, slurm={"extra_directives": ["--begin=now+3"]})
    following = run.begin()
    await run.hear("waiting in the queue")
    await _dies(following)
    await run.follow()
    assert len(await attempts_of(run)) == 2
    reliability.write(
        happened="finds its jobs in the queue and follows them",
        counts=await audit(run),
        message=await run.hear("Found attempt 1"),
    )


@pytest.mark.fault("Nightshard itself stopped and started", "it ends while shards work")
async def test_while_working(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2, rows=8)
    following = run.begin()
    await run.answered(0, 2)
    await _dies(following)
    await run.follow()
    assert len(await attempts_of(run)) == 2
    reliability.write(
        happened="finds its jobs at work and follows them",
        counts=await audit(run),
        message=await run.hear("Found attempt 1"),
    )


@pytest.mark.fault(
    "Nightshard itself stopped and started", "it ends, and jobs end while it is down"
)
async def test_while_jobs_end(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    following = run.begin()
    await run.answered(0, 1)
    await _dies(following)
    await run.finished(0)
    await run.finished(1)
    await run.follow()
    assert len(await attempts_of(run)) == 2
    reliability.write(
        happened="finds them done",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault(
    "Nightshard itself stopped and started", "it ends after an attempt failed, before the next"
)
async def test_between_attempts(lab: Lab, reliability: Reliability) -> None:
    import signal

    run = await lab.stage(rows=6)
    record = _file(run.layout.attempt_record(0, 1))
    with lab.site.shim(
        "sbatch", 'case "$*" in *job-a2*) sleep 1; exit 1;; esac; exec "$real" "$@"'
    ):
        following = run.begin()
        (await run.working(0, 2)).send(signal.SIGKILL)
        await until(record.exists, "the end of attempt 1 was written down")
        await _dies(following)
    (outcome,) = await run.follow()
    reliability.write(
        happened=f"what was decided is read, not decided again. {ends(outcome)}",
        counts=await audit(run),
        message=await run.hear("Submitted attempt 2"),
    )


@pytest.mark.fault(
    "Nightshard itself stopped and started", "an old try is cancelled after the next try has begun"
)
async def test_cancel_of_an_old_try(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=8)
    old = run.begin()
    await run.answered(0, 2)
    await run.follower(0, try_number=2).own()
    said = await run.follower(0, try_number=1).cancel()
    await _dies(old)
    assert run.jobs()
    await run.follow(try_number=2)
    assert len(await attempts_of(run)) == 1
    reliability.write(
        happened="the old try cancels nothing; the job goes on under the new one",
        counts=await audit(run),
        message=said,
    )


@pytest.mark.fault("Nightshard itself stopped and started", "a person stops one shard's task")
async def test_cancel(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=3, rows=6)
    following = [run.begin(rank) for rank in range(3)]
    await run.answered(1, 1)
    said = await run.follower(1).cancel()
    await _dies(following[1])
    await asyncio.gather(following[0], following[2])
    assert not run.jobs()
    await run.follow(1, try_number=2)
    assert await _attempts(run) == [(0, 1), (1, 1), (1, 2), (2, 1)]
    reliability.write(
        happened="exactly its element is cancelled; its siblings go on; done after the task is "
        "cleared",
        counts=await audit(run),
        message=said,
    )


async def _attempts(run: FaultRun) -> list[tuple[int, int]]:
    return [(one.rank, one.attempt) for one in await attempts_of(run)]
