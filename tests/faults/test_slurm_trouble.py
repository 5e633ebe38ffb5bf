"""Trouble of Slurm's own: daemons that end, nodes that fail, jobs that make way."""

import contextlib
import shutil
import signal
from pathlib import Path

import pytest
from support.faults.audit import attempts_of, audit, ends
from support.faults.plugin import Reliability
from support.faults.run import FaultRun, Lab
from support.faults.site import frozen, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]


def _node(run: FaultRun, rank: int = 0) -> str:
    return str(run.progress(rank)["node"])


@pytest.mark.fault("Slurm's own trouble", "slurmctld ends and is started again while a run works")
async def test_slurmctld_restarted(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(shards=2, rows=8)
    following = run.begin()
    await run.answered(0, 2)
    await lab.site.kill("slurmctld")
    said = await run.hear("Slurm does not answer")
    await lab.site.mend()
    await following
    assert len(await attempts_of(run)) == 2
    reliability.write(
        happened="asks again until it answers; the jobs do not notice",
        counts=await audit(run),
        message=said,
    )


@pytest.mark.fault(
    "Slurm's own trouble", "a node's slurmd is killed, its worker goes on as an orphan"
)
async def test_slurmd_killed(impatient: Lab, reliability: Reliability) -> None:
    site = impatient.site
    run = await impatient.stage(rows=6)
    following = run.begin()
    orphan = await run.working(0, 2)
    orphan.send(signal.SIGSTOP)  # it sleeps through its own replacement, as on a hung node
    await until(lambda: frozen(orphan), "the worker was frozen")
    node = _node(run)
    await site.kill(node, signal.SIGKILL)
    try:
        again = run.folder / "shards/00000/claim-2"
        await until(again.exists, "another attempt had begun")
        orphan.send(signal.SIGCONT)
        await until(lambda: not orphan.alive(), "the old worker went away by itself")
    finally:
        orphan.send(signal.SIGCONT)
        await following
        await site.mend()
    (outcome,) = following.result()
    assert outcome.attempts[-1].node != node
    log = (run.folder / "shards/00000/attempt-1.log").read_text()
    assert " ends here" in log
    reliability.write(
        happened=f"{ends(outcome)}; the old worker sees that it was replaced and ends",
        counts=await audit(run),
        message=await run.hear("its node failed"),
    )


@pytest.mark.fault("Slurm's own trouble", "slurmctld is killed and has forgotten its newest jobs")
async def test_slurmctld_lost_its_state(impatient: Lab, reliability: Reliability) -> None:
    site = impatient.site
    state, kept = site.cluster.root / "state", site.cluster.root / "state-before"
    run = await impatient.stage(rows=6)
    shutil.copytree(state, kept)
    following = run.begin()
    await run.answered(0, 2)
    await site.kill("slurmctld", signal.SIGKILL)
    await until(run.manifest(0).exists, "the job went on without slurmctld")
    shutil.rmtree(state)
    kept.rename(state)
    await site.mend()
    (outcome,) = await following
    reliability.write(
        happened=f"the job goes on and is judged by the manifest that it left. {ends(outcome)}",
        counts=await audit(run),
        message=outcome.message,
    )


@pytest.mark.fault("Slurm's own trouble", "a node is set down")
async def test_node_set_down(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    await run.answered(0, 2)
    node = _node(run)
    lab.site.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        (outcome,) = await following
    finally:
        await lab.site.return_to_service(node)
    assert outcome.attempts[-1].node != node
    reliability.write(
        happened=ends(outcome),
        counts=await audit(run),
        message=await run.hear("its node failed"),
    )


@pytest.mark.timeout(400)  # Slurm holds a requeued job for two minutes, and may take another one
@pytest.mark.fault("Slurm's own trouble", "a node is set down where the site requeues jobs itself")
async def test_node_set_down_with_requeue(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6, slurm={"requeue": True})
    following = run.begin()
    worker = await run.working(0, 2)
    node = _node(run)
    lab.site.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        said = await run.hear("BeginTime")
        await until(lambda: not worker.alive(), "the first worker ended")
        await _start_now(lab, run, node)
        (outcome,) = await following
    finally:
        await lab.site.return_to_service(node)
    assert len(outcome.attempts) == 1
    reliability.write(
        happened="Slurm starts the same job again, which makes only the missing answers",
        counts=await audit(run, restarts=len(_restarts(run))),
        message=said,
    )


def _restarts(run: FaultRun) -> list[Path]:
    return sorted((run.folder / "shards/00000").glob("claim-1-restart-*"))


async def _start_now(lab: Lab, run: FaultRun, node: str) -> None:
    """Cut short the two minutes for which Slurm holds a requeued job back."""
    element = await run.element(0)
    for number in range(30):  # longer than the two minutes: Slurm may overlook the wish
        lab.site.ask("scontrol", "update", f"JobId={element}", "StartTime=now", check=False)
        # The node may refuse a job that it is not yet rid of; Slurm then holds it for a person.
        lab.site.ask("scontrol", "release", element, check=False)
        with contextlib.suppress(AssertionError):
            await until(lambda: bool(_restarts(run)), "Slurm started the job again", timeout_s=10)
            return
        if number == 8:  # the other node may be taken
            await lab.site.return_to_service(node)
    jobs = lab.site.ask("scontrol", "show", "job", check=False)
    nodes = lab.site.ask("scontrol", "show", "node", check=False)
    raise AssertionError(f"Slurm did not start the job again: {jobs} {nodes}")


@pytest.mark.fault(
    "Slurm's own trouble", "a job is preempted by one of a partition that goes first"
)
async def test_preempted(lab: Lab, reliability: Reliability) -> None:
    run = await lab.stage(rows=6)
    following = run.begin()
    worker = await run.working(0, 2)
    worker.send(signal.SIGSTOP)  # else it may be done before Slurm looks at its queue again
    urgent = lab.site.ask(
        *("sbatch", "--parsable", "--partition=hi", f"--nodelist={_node(run)}", "--exclusive"),
        *("--output=/dev/null", "--wrap=sleep 300"),
    ).strip()
    try:
        said = await run.hear("preempted by Slurm")
    finally:
        lab.site.ask("scancel", urgent)
    (outcome,) = await following
    reliability.write(happened=ends(outcome), counts=await audit(run), message=said)


@pytest.mark.fault(
    "Slurm's own trouble", "an ended job is purged from Slurm's memory before a poll"
)
async def test_purged(forgetful: Lab, reliability: Reliability) -> None:
    run = await forgetful.stage(shards=2)
    following = run.begin()
    await run.answered(0, 1)
    forgetful.proxy.refuse()
    forgetful.proxy.cut_all()
    await run.finished(0)
    await run.finished(1)
    await _forgotten(forgetful, run)
    await forgetful.proxy.accept()
    await following
    reliability.write(
        happened="judged by the manifest that it left",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault(
    "Slurm's own trouble", "a killed job is purged from Slurm's memory before a poll"
)
async def test_purged_after_failure(forgetful: Lab, reliability: Reliability) -> None:
    run = await forgetful.stage(rows=6)
    following = run.begin()
    worker = await run.working(0, 2)
    forgetful.proxy.refuse()
    forgetful.proxy.cut_all()
    worker.send(signal.SIGKILL)
    await until(lambda: not run.jobs(), "the job ended")
    await _forgotten(forgetful, run)
    await forgetful.proxy.accept()
    (outcome,) = await following
    reliability.write(
        happened=f"judged by its exit record. {ends(outcome)}",
        counts=await audit(run),
        message=await run.hear("killed"),
    )


async def _forgotten(lab: Lab, run: FaultRun) -> None:
    key = run.layout.run_key
    await until(lambda: not lab.site.jobs(key, ended=True), "Slurm forgot the jobs")


@pytest.mark.fault("Slurm's own trouble", "the accounting database is down during a whole run")
async def test_accounting_down(accounted: Lab, reliability: Reliability) -> None:
    await accounted.site.kill("slurmdbd")
    try:
        run = await accounted.stage(shards=2)
        await run.follow()
    finally:
        await accounted.site.mend()
    reliability.write(
        happened="squeue alone serves",
        counts=await audit(run),
        message=run.outcomes[0].message,
    )


@pytest.mark.fault(
    "Slurm's own trouble", "the only witness of a cancelled job is an accounting database that lags"
)
async def test_accounting_lags(accounted: Lab, reliability: Reliability) -> None:
    run = await accounted.stage(rows=6, slurm={"accounting": "yes"}, polling={"grace_s": 60.0})
    following = run.begin()
    worker = await run.working(0, 2)
    worker.send(signal.SIGSTOP)
    element = await run.element(0)
    await accounted.site.kill("slurmdbd")
    try:
        accounted.proxy.refuse()
        accounted.proxy.cut_all()
        accounted.site.ask("scancel", element)
        await until(lambda: not worker.alive(), "the worker ended")
        await _forgotten(accounted, run)
        await accounted.proxy.accept()
        await run.hear("Slurm does not list it")
    finally:
        await accounted.site.mend()
    (outcome,) = await following
    assert not outcome.done
    await run.follow(try_number=2)
    reliability.write(
        happened=f"waited for the database. {ends(outcome)}; finished after the task is cleared",
        counts=await audit(run),
        message=outcome.message,
    )
