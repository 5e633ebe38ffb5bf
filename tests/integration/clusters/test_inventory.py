"""What an account has on a real cluster, as one command tells it."""

import asyncio
import json

import pytest

from nightshard.clusters.inventory import cancel_orphans, take_inventory
from nightshard.clusters.reconcile import RunNow, reconcile
from nightshard.clusters.transport import run_checked

pytestmark = pytest.mark.integration

JOB = b"""#!/bin/sh
#SBATCH --array=0-2%1
#SBATCH --output=/dev/null
exec sleep 300
"""


async def test_running_and_waiting_elements_have_an_age_and_are_cancelled_one_by_one(runs) -> None:
    layout = runs.layout()
    transport, name = runs.transport, f"ns-{layout.run_key}-a1"
    identity = {"deployment": "d1", "dag_id": "evaluate", "dag_run_id": "m"}
    await run_checked(transport, ["mkdir", "-p", str(layout.run)], "mkdir")
    await transport.put_bytes(layout.identity, json.dumps(identity).encode())
    script = layout.run / "job-a1.sbatch"
    await transport.put_bytes(script, JOB)
    await run_checked(transport, ["sbatch", f"--job-name={name}", str(script)], "sbatch")
    now = {layout.run_key: RunNow("running", {0: "failed", 1: "deferred", 2: "failed"})}

    async def look():
        found = await take_inventory(transport, layout.workdir)
        elements = [one for one in found.elements if one.name == name]
        return elements, reconcile(elements, found.folders, now, "d1", grace_s=1)

    elements, findings = await look()
    while len(findings.orphans) < 2:
        assert len(elements) == 3
        await asyncio.sleep(0.2)
        elements, findings = await look()
    assert {one.element.script for one in findings.orphans} == {str(script)}
    states = {one.ranks: one.element.state.value for one in findings.orphans}
    assert states[2,] == "waiting"

    await cancel_orphans(transport, findings.orphans)
    elements, findings = await look()
    while findings.orphans:  # a running one takes a moment to end
        await asyncio.sleep(0.2)
        elements, findings = await look()
    assert [one.index for one in elements if one.alive] == [1]
    await run_checked(transport, ["scancel", f"--name={name}"], "scancel")
