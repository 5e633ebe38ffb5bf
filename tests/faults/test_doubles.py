"""Nothing is doubled, whoever submits, whatever the clocks say and whichever ids come back."""

import signal
from datetime import datetime
from pathlib import Path

import pytest
from support.faults.audit import attempts_of, audit, ends
from support.faults.plugin import Reliability
from support.faults.run import FaultRun, Lab
from support.faults.site import standing_still, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def _by_hand(run: FaultRun) -> str:
    script = run.shards[0].submission(1).script
    return run.lab.site.ask("sbatch", "--parsable", str(script)).strip()


async def _ended(run: FaultRun, job: str) -> None:
    await until(lambda: not any(one.startswith(f"{job}_") for one in run.jobs()), f"{job} ended")


@pytest.mark.fault(
    "Doubles, clocks and recycled ids", "two jobs run the same attempt of the same shards at once"
)
async def test_two_jobs_at_once(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2, rows=8)
    following = run.begin()
    at_work = [await run.working(rank, 1) for rank in (0, 1)]
    with standing_still(*at_work):
        await _ended(run, _by_hand(run))
    await following
    log = Path(run.layout.attempt_log(0, 1)).read_text()
    (refused,) = (line for line in log.splitlines() if "claim-1 is held by" in line)
    reliability.write(
        happened="the second finds the shards claimed and ends at once",
        counts=await audit(run, by_hand=1),
        message=refused,
    )


@pytest.mark.fault(
    "Doubles, clocks and recycled ids", "a job is submitted again by hand after its run is done"
)
async def test_again_after_the_end(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2, rows=2)
    await run.follow()
    before = [run.output(rank).stat().st_mtime_ns for rank in (0, 1)]
    await _ended(run, _by_hand(run))
    assert [run.output(rank).stat().st_mtime_ns for rank in (0, 1)] == before
    log = Path(run.layout.attempt_log(0, 1)).read_text()
    reliability.write(
        happened="it finds the shards finished and changes nothing",
        counts=await audit(run, by_hand=1),
        message=log.splitlines()[-1],
    )


@pytest.mark.fault(
    "Doubles, clocks and recycled ids", "an old attempt starts after it was given up"
)
async def test_given_up_attempt_starts_late(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    (await run.working(0, 2)).send(signal.SIGKILL)
    with standing_still(await run.working(0, 3, attempt=2)):
        await _ended(run, _by_hand(run))
    (outcome,) = await following
    log = Path(run.layout.attempt_log(0, 1)).read_text()
    (refused,) = (line for line in log.splitlines() if " ends here" in line)
    reliability.write(
        happened=f"{ends(outcome)}; the late job sees a later attempt and ends at once",
        counts=await audit(run, by_hand=1),
        message=refused,
    )


@pytest.mark.fault(
    "Doubles, clocks and recycled ids", "the clocks of all hosts disagree by hours and years"
)
async def test_clocks(lab: Lab, reliability: Reliability) -> None:
    ahead = {"TZ": "Pacific/Kiritimati"}
    run = await lab.stage(rows=6, worker={"env": ahead})
    behind = 'export TZ=Etc/GMT+12; exec "$real" "$@"'
    with lab.site.shim("squeue", behind), lab.site.shim("sacct", behind):
        following = run.begin()
        worker = await run.working(0, 2)
        for path, year in zip(sorted(run.folder.rglob("*")), (1990, 2085) * 1000, strict=False):
            at = datetime(year, 1, 1).timestamp()  # noqa: DTZ001 (any clock will do)
            _touch(path, at)
        worker.send(signal.SIGKILL)
        (outcome,) = await following
    reliability.write(
        happened=f"{ends(outcome)}; no decision looks at a clock of another host",
        counts=await audit(run),
        message=await run.hear("was killed"),
    )


def _touch(path: Path, at: float) -> None:
    import os

    if path.exists():
        os.utime(path, (at, at))


@pytest.mark.fault(
    "Doubles, clocks and recycled ids", "Slurm gives a job's id to somebody else's job"
)
async def test_recycled_id(forgetful: Lab, reliability: Reliability) -> None:
    site = forgetful.site
    run = await forgetful.stage(rows=3)
    following = run.begin()
    await run.answered(0, 1)
    element = await run.element(0)
    job_id = int(element.partition("_")[0])
    forgetful.proxy.refuse()
    forgetful.proxy.cut_all()
    await run.finished(0)
    key = run.layout.run_key
    await until(lambda: not site.jobs(key, ended=True), "Slurm forgot the job")
    conf = Path(site.info.slurm_conf)
    usual = conf.read_text()
    try:
        conf.write_text(f"{usual}FirstJobId={job_id}\nMaxJobId={job_id + 1}\n")
        site.ask("scontrol", "reconfigure")
        stranger = _stranger(forgetful, str(job_id))
    finally:
        conf.write_text(usual)
        site.ask("scontrol", "reconfigure")
    await forgetful.proxy.accept()
    await following
    assert "stranger" in site.ask("squeue", "--noheader", "--format=%j", f"--jobs={stranger}")
    site.ask("scancel", stranger)
    assert len(await attempts_of(run)) == 1
    reliability.write(
        happened="the name tells them apart: the stranger's job is neither believed nor cancelled",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


def _stranger(lab: Lab, job_id: str) -> str:
    """Submit jobs of another name until one has the id."""
    for _ in range(5):
        got = lab.site.ask(
            *("sbatch", "--parsable", "--job-name=stranger", "--array=0"),
            *("--output=/dev/null", "--wrap=sleep 300"),
        ).strip()
        if got == job_id:
            return got
        lab.site.ask("scancel", got)
    raise AssertionError("Slurm does not recycle its ids")
