"""An array is submitted once in effect, whatever becomes of sbatch's reply."""

import asyncio

import pytest
from support.faults.audit import audit
from support.faults.plugin import Reliability
from support.faults.run import Lab
from support.faults.site import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

ONCE = 'mkdir "$state/once" 2>/dev/null || exec "$real" "$@"\n'
HOLD = 'touch "$state/asked"; for _ in {1..400}; do [ -e "$state/go" ] && exit; sleep 0.05; done\n'


@pytest.mark.fault("Submitting", "sbatch's reply is lost before Slurm has the job")
async def test_reply_lost_before_acceptance(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    with lab.site.shim("sbatch", ONCE + HOLD) as state:
        following = run.begin()
        await until((state / "asked").exists, "sbatch was run")
        lab.proxy.cut_all()
        (state / "go").touch()
        await following
    reliability.write(
        happened="looked up by name twice, not found, submitted",
        counts=await audit(run),
        message=await run.hear("Submitted attempt 1"),
    )


@pytest.mark.fault("Submitting", "sbatch's reply is lost after Slurm accepted the job")
async def test_reply_lost_after_acceptance(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    accept = '"$real" "$@" >"$state/reply"; '
    with lab.site.shim("sbatch", ONCE + accept + HOLD) as state:
        following = run.begin()
        await until((state / "asked").exists, "Slurm accepted")
        lab.proxy.cut_all()
        (state / "go").touch()
        await following
    reliability.write(
        happened="looked up by name, found, adopted",
        counts=await audit(run),
        message=await run.hear("Found attempt 1"),
    )


@pytest.mark.fault(
    "Submitting", "the controller is busy: sbatch times out, but the job is accepted"
)
async def test_controller_busy(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    busy = (
        '"$real" "$@" >"$state/reply"\n'
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"'
        " >&2; exit 1"
    )
    with lab.site.shim("sbatch", ONCE + busy):
        await run.follow()
    reliability.write(
        happened="looked up by name, found, adopted",
        counts=await audit(run),
        message=await run.hear("Found attempt 1"),
    )


@pytest.mark.fault("Submitting", "sbatch ends with an error code, but prints a job id")
async def test_error_code_with_an_id(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    with lab.site.shim("sbatch", ONCE + '"$real" "$@"; exit 1'):
        await run.follow()
    reliability.write(
        happened="the id is believed",
        counts=await audit(run),
        message=await run.hear("Submitted attempt 1"),
    )


@pytest.mark.fault("Submitting", "slurmctld is down when the array is submitted")
async def test_controller_down(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    await lab.site.kill("slurmctld")
    try:
        following = run.begin()
        said = await run.hear("squeue did not answer")
    finally:
        await lab.site.mend()
    await following
    reliability.write(
        happened="asked again until it answers, then submitted",
        counts=await audit(run),
        message=said,
    )


@pytest.mark.fault("Submitting", "Slurm refuses the job and keeps a record of it")
async def test_refused(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2, slurm={"constraint": "gold"})
    refused = await run.follow()
    assert not any(outcome.done for outcome in refused)

    run.profile = lab.profile()
    await run.follow(try_number=2)

    reliability.write(
        happened="stop; once the profile is mended and the task cleared, submitted, and the record "
        "of the refused one is not taken for it",
        counts=await audit(run),
        message=refused[0].message,
    )


@pytest.mark.fault("Submitting", "Slurm refuses because the account has too many jobs in the queue")
async def test_queue_full_by_slurms_word(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2)
    # The words of Slurm 22.05 for an association's MaxSubmitJobs.
    full = (
        "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2\n"
        "echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job"
        " submit limit, user'\"'\"'s size and/or time limits)' >&2; exit 1"
    )
    other = lab.site.ask("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 300").strip()
    with lab.site.shim("sbatch", ONCE + full):
        following = run.begin()
        said = await run.hear("as many jobs as the site allows")
        lab.site.ask("scancel", other)
        await following
    reliability.write(
        happened="waits for room, then submitted",
        counts=await audit(run),
        message=said,
    )


@pytest.mark.fault("Submitting", "the run has more shards than the site's limit on queued jobs")
async def test_queue_limit(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=5, rows=1, slurm={"max_submitted": 2})
    most = 0
    following = run.begin()
    while not following.done():
        most = max(most, len(await asyncio.to_thread(run.jobs)))
        await asyncio.sleep(0.05)
    await following
    assert 0 < most <= 2
    assert len(list(run.folder.glob("submission-a1-c*.json"))) == 3
    reliability.write(
        happened="submitted as three arrays, each when there is room",
        counts=await audit(run),
        message=await run.hear("as many jobs as the site allows"),
    )


@pytest.mark.fault("Submitting", "the run has more shards than MaxArraySize")
async def test_max_array_size(forgetful: Lab, reliability: Reliability) -> None:
    run = await forgetful.stage(shards=5, rows=1, slurm={"max_array_size": 3})
    await run.follow()
    for rank in range(5):
        log = (run.folder / "shards" / f"{rank:05d}" / "attempt-1.log").read_text()
        assert f"shard-{rank:05d}-of-00005 is done" in log
    reliability.write(
        happened="submitted as two arrays, each log in its shard's folder",
        counts=await audit(run),
        message=await run.hear("Submitted attempt 1"),
    )
