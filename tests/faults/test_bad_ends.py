"""A job that ends badly is followed by another attempt where its cause allows one."""

import asyncio
import signal

import pytest
from support.faults.audit import attempts_of, audit, ends
from support.faults.plugin import Reliability
from support.faults.run import FaultRun, Lab
from support.faults.site import frozen, until

from nightshard.clusters.attempts import AttemptRecord, RetryLimits, decide
from nightshard.clusters.following import ShardOutcome
from nightshard.clusters.slurm import ShardState, parse_sacct, parse_squeue
from nightshard.clusters.status import Evidence, Grace, WatchedShard, judge
from nightshard.clusters.submit import ArrayJob

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


async def _cleared(run: FaultRun, stopped: ShardOutcome) -> str:
    """Finish a shard that stopped as a person does; tell how it all went."""
    assert not stopped.done
    (outcome,) = await run.follow(try_number=2)
    return f"{ends(stopped)}; after the task is cleared, done in attempt {len(outcome.attempts)}"


WITH_PROGRESS = "the time limit comes, and answers were added"
WITHOUT_PROGRESS = "the time limit comes, and no answer was added"


@pytest.mark.fault("Jobs that end badly", "the time limit comes, and answers were added")
@pytest.mark.fault("Jobs that end badly", "the time limit comes, and no answer was added")
async def test_time_limit(lab: Lab, reliability: Reliability) -> None:
    """Both at once, since Slurm looks at the time limits only every half minute."""
    await asyncio.gather(
        _time_limit_with_progress(lab, reliability), _time_limit_without_progress(lab, reliability)
    )


async def _time_limit_with_progress(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    await run.answered(0, 2)
    await _time_is_up(lab, run)
    (outcome,) = await following
    reliability.write(
        kind=WITH_PROGRESS,
        happened=ends(outcome),
        counts=await audit(run),
        message=await run.hear("time limit"),
    )


async def _time_limit_without_progress(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=2, pace=600.0)
    following = run.begin()
    await _time_is_up(lab, run)
    (stopped,) = await following
    lab.quicken(run)
    reliability.write(
        kind=WITHOUT_PROGRESS,
        happened=await _cleared(run, stopped),
        counts=await audit(run),
        message=stopped.message,
    )


async def _time_is_up(lab: Lab, run: FaultRun) -> None:
    """End a job's time for a worker that does not heed the warning before."""
    worker = await run.working(0, 0)
    worker.send(signal.SIGSTOP)
    await until(lambda: frozen(worker), "the worker hung")
    lab.site.ask("scontrol", "update", f"JobId={await run.element(0)}", "EndTime=now")


@pytest.mark.fault("Jobs that end badly", "Slurm warns of the time limit")
async def test_warned_of_the_time_limit(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    await run.answered(0, 2)
    lab.site.ask("scancel", "--batch", "--signal=USR1", await run.element(0))
    (outcome,) = await following
    reliability.write(
        happened=ends(outcome), counts=await audit(run), message=await run.hear("interrupted")
    )


@pytest.mark.fault("Jobs that end badly", "a worker is killed (signal 9), and answers were added")
async def test_killed_with_progress(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    (await run.working(0, 2)).send(signal.SIGKILL)
    (outcome,) = await following
    reliability.write(
        happened=ends(outcome), counts=await audit(run), message=await run.hear("was killed")
    )


@pytest.mark.fault("Jobs that end badly", "a worker is killed (signal 9), and no answer was added")
async def test_killed_without_progress(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=2, pace=600.0)
    following = run.begin()
    (await run.working(0, 0)).send(signal.SIGKILL)
    (stopped,) = await following
    lab.quicken(run)
    reliability.write(
        happened=await _cleared(run, stopped), counts=await audit(run), message=stopped.message
    )


@pytest.mark.fault("Jobs that end badly", "a worker crashes (signal 11), and answers were added")
async def test_segmentation_fault(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    (await run.working(0, 2)).send(signal.SIGSEGV)
    (outcome,) = await following
    reliability.write(
        happened=ends(outcome), counts=await audit(run), message=await run.hear("exit code 139")
    )


OUT_OF_MEMORY = """\
#!/bin/sh
# Runs the worker with an engine whose weights do not fit.
shift 2
exec {python} -c '
import sys
from shard_worker.engines.echo import EchoEngine
EchoEngine.load = lambda self, requests: bytearray(1 << 60)
from shard_worker.cli import main
sys.exit(main(sys.argv[1:]))
' "$@"
"""


@pytest.mark.fault("Jobs that end badly", "the model does not fit into memory")
async def test_out_of_memory(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=2)
    python = lab.site.info.shared / "python-without-memory"
    python.write_text(OUT_OF_MEMORY.format(python=run.profile.worker.python))
    python.chmod(0o755)
    run.profile = lab.profile(worker={"python": str(python)})
    (stopped,) = await run.follow()
    assert any("does not fit into memory" in line for line in stopped.log_lines)
    run.profile = lab.profile()
    reliability.write(
        happened=await _cleared(run, stopped), counts=await audit(run), message=stopped.message
    )


def test_out_of_memory_in_slurms_words() -> None:
    """It takes root and control groups to provoke, so Slurm's rows are given as recorded."""
    squeue = "57_0|57|0|57|OUT_OF_MEMORY|OutOfMemory|node1|2026-11-24T22:00:00|1:07|ns-run-1-a1"
    sacct = "57_0|57|OUT_OF_MEMORY|0:125|node1|67|2026-11-24T22:00:00|ns-run-1-a1"
    lab_run = _watched()
    for seen in (
        Evidence(queue=parse_squeue(squeue)[0]),
        Evidence(accounts=parse_sacct(sacct)[0], missing_s=1.0),
    ):
        status = judge(lab_run, seen, Grace())
        assert (status.final, status.state) == (True, ShardState.OUT_OF_MEMORY)
        record = AttemptRecord(
            rank=0,
            attempt=1,
            job_id="57_0",
            job_name="ns-run-1-a1",
            state=status.state.value,
            done=5,
            message=status.message,
            ended_at="2026-11-24T22:01:07+00:00",
        )
        assert not decide([record], RetryLimits()).again


def _watched() -> WatchedShard:
    from pathlib import PurePosixPath

    from nightshard.clusters.layout import RunLayout

    layout = RunLayout(PurePosixPath("/work"), "run-1")
    return WatchedShard(layout, 0, 1, ArrayJob("57", None, "ns-run-1-a1", 1), 10, "f" * 32)


@pytest.mark.fault("Jobs that end badly", "a person cancels one element by hand")
async def test_cancelled_by_hand(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=3, rows=6)
    following = run.begin()
    await run.answered(1, 1)
    lab.site.ask("scancel", await run.element(1))
    first, stopped, third = await following
    assert first.done
    assert third.done
    assert not stopped.done
    await run.follow(1, try_number=2)
    assert sorted(one.rank for one in await attempts_of(run)) == [0, 1, 1, 2]
    reliability.write(
        happened=f"{ends(stopped)}; its siblings go on; done after the task is cleared",
        counts=await audit(run),
        message=stopped.message,
    )


@pytest.mark.fault("Jobs that end badly", "a node lacks the worker's Python")
async def test_no_python(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=2)
    run.profile = lab.profile(worker={"python": "/nowhere/python"})
    (stopped,) = await run.follow()
    run.profile = lab.profile()
    reliability.write(
        happened=await _cleared(run, stopped), counts=await audit(run), message=stopped.message
    )


@pytest.mark.fault("Jobs that end badly", "every attempt is killed")
async def test_attempts_used_up(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6, retry={"max_attempts": 2})
    following = run.begin()
    (await run.working(0, 1)).send(signal.SIGKILL)
    (await run.working(0, 2, attempt=2)).send(signal.SIGKILL)
    (stopped,) = await following
    reliability.write(
        happened=await _cleared(run, stopped), counts=await audit(run), message=stopped.message
    )
