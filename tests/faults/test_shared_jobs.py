"""Shards that share a job, and shards whose job is not needed any more, on a real Slurm."""

import signal
from pathlib import Path

import pytest
from support.faults.audit import Counts, attempts_of, audit, ends
from support.faults.run import Lab
from support.faults.site import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

NOTHING = Counts(lost=0, twice=0, orphaned=0, doubled=0)
TWO_A_JOB = {"shards_per_job": 2}


async def test_a_shard_that_dies_has_another_attempt_when_its_job_has_ended(lab: Lab) -> None:
    run = await lab.stage(shards=4, rows=6, slurm=TWO_A_JOB)
    following = run.begin()
    (await run.working(0, 2)).send(signal.SIGKILL)

    outcomes = await following

    assert ends(outcomes[0]) == "failed: again, then done"
    assert [ends(one) for one in outcomes[1:]] == ["done"] * 3
    jobs = [one.job_id for one in await attempts_of(run)]
    assert jobs[0] == jobs[2].replace("_1", "_0") != jobs[1]
    assert jobs[3] == jobs[4] != jobs[0]
    log = Path(run.layout.attempt_log(1, 1)).read_text()
    assert "What concerns the whole job is in" in log
    assert await audit(run) == NOTHING


async def test_cancelling_one_shard_of_a_job_leaves_the_other_its_job(lab: Lab) -> None:
    run = await lab.stage(shards=2, rows=8, slurm=TWO_A_JOB)
    following = run.begin()
    await run.answered(0, 1)
    worker = await run.working(1, 1)

    said = await run.follower(1).cancel()

    assert said == "Cancelled attempt 1 of shard 2."
    await until(lambda: not worker.alive(), "its worker ended")
    assert run.jobs()
    kept, stopped = await following
    assert kept.done
    assert ends(stopped) == "cancelled: stop: somebody cancelled it"
    await run.follow(1, try_number=2)
    assert await audit(run) == NOTHING


async def test_cancelling_all_shards_of_a_job_cancels_it(lab: Lab) -> None:
    run = await lab.stage(shards=2, rows=400, slurm=TWO_A_JOB)
    following = run.begin()
    await run.answered(0, 1)
    await run.answered(1, 1)

    await run.follower(0).cancel()
    await run.follower(1).cancel()

    await until(lambda: not run.jobs(), "the job was gone", timeout_s=10)
    assert [one.done for one in await following] == [False, False]


async def test_a_job_that_never_begins_is_cancelled_when_the_others_have_done_its_work(
    lab: Lab,
) -> None:
    later = {"extra_directives": ["--begin=now+1hour"]}
    run = await lab.stage(shards=2, rows=3, pace=0.1, balance="steal", slurm=later)
    following = run.begin()
    element = await run.element(0)
    lab.site.ask("scontrol", "update", f"JobId={element}", "StartTime=now")

    first, second = await following

    assert first.done
    assert second.done
    assert second.manifest is not None
    assert second.manifest.rows == 0
    assert second.attempts[0].gpus == 0
    assert await run.hear("done by the other shards before its job began")
    assert await audit(run) == NOTHING
