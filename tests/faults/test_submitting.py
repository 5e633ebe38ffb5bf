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
