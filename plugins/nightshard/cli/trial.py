"""The last check of ``nightshard doctor --cluster``: a job that answers one question."""

import asyncio
import contextlib
import secrets
import tempfile
import time
from pathlib import Path, PurePosixPath

from nightshard.clusters.collecting import collect_run
from nightshard.clusters.documents import RunIdentity
from nightshard.clusters.errors import TransportError
from nightshard.clusters.examination import Patient
from nightshard.clusters.layout import RunLayout, shard_name
from nightshard.clusters.models import describe_model, resolve_model
from nightshard.clusters.script import render_script
from nightshard.clusters.staging import stage_run
from nightshard.clusters.submission import first_submissions
from nightshard.clusters.submit import ArrayJob, cancel, submit_array
from nightshard.core.errors import NightshardError, UserError
from nightshard.core.fingerprint import ModelDescription
from nightshard.core.hashing import canonical_json
from nightshard.core.run_params import RunParams
from nightshard.core.run_plan import RunPlan

JOB_MINUTES = 5
POLL_S = 2.0
QUESTION = "What is 2 + 3? Put the answer into \\boxed{}."
BAD_ENDS = ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")


async def one_question(patient: Patient, model: str | None, wait_s: float) -> str:
    """Submit a job as a run would, with one shard and one question, and bring its answer back.

    Args:
        patient: the cluster, with its worker staged.
        model: a folder or Hub id; without one the engine that only repeats is used.
        wait_s: how long the job may take, its time in the queue included.

    Raises:
        UserError: it did not work; the sentence says at which point.
    """
    layout = RunLayout(PurePosixPath(patient.profile.workdir), f"doctor-{secrets.token_hex(4)}")
    try:
        job = await _submit(patient, layout, model)
        return await _await_answer(patient, layout, job, wait_s)
    finally:
        await patient.shell('rm -rf -- "$1"', str(layout.run))


async def _submit(patient: Patient, layout: RunLayout, model: str | None) -> ArrayJob:
    profile = patient.profile
    assert patient.worker is not None  # noqa: S101 (the check rests on "packages")
    plan = await _plan(patient, layout, model)
    files = {
        f"inputs/{shard_name(0, 1)}.parquet": _question(),
        layout.identity.name: _identity(layout),
        "model/config.json": b"{}",
        "spec.json": canonical_json(plan.spec(1)).encode(),
    }
    size, per_job = profile.slurm.max_array_size, profile.slurm.shards_per_job
    await stage_run(patient.transport, layout, files, 1, array_size=size, per_job=per_job)
    (submission,) = first_submissions(layout, 1, size, per_job)
    script = render_script(
        profile,
        submission,
        world_size=1,
        max_job_minutes=JOB_MINUTES,
        worker_zip=patient.worker,
        templates=patient.templates,
    )
    return await submit_array(patient.transport, submission, script)


async def _plan(patient: Patient, layout: RunLayout, model: str | None) -> RunPlan:
    profile, worker = patient.profile, patient.worker or ""
    engine = profile.engine.model_dump(mode="json")
    if model is None:
        engine = {**engine, "name": "echo", "options": {"answer": "\\boxed{5}"}}
        description = ModelDescription(
            f"{layout.run}/model", "doctor", None, None, "echo", "0", "0", 0
        )
    else:
        path = await resolve_model(patient.transport, profile, model)
        description = await describe_model(
            patient.transport, profile, worker, path, engine=engine["name"]
        )
    return RunPlan(
        run_key=layout.run_key,
        params=RunParams(model=model or "doctor", tasks=("Starter",), cluster=profile.name),
        model=description,
        engine=engine,
        num_shards=1,
        max_job_minutes=JOB_MINUTES,
        worker=worker,
        started_at="2000-01-01T00:00:00+00:00",
        dag_run_id="doctor",
        balance="static",
    )


def _question() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from nightshard.core.requests import Sampling, make_request
    from nightshard.results.arrow import requests_to_table

    request = make_request(
        benchmark="Starter",
        benchmark_version="doctor",
        problem_id="doctor",
        repeat_idx=0,
        messages=[{"role": "user", "content": QUESTION}],
        sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=64),
    )
    sink = pa.BufferOutputStream()
    pq.write_table(requests_to_table([request]), sink)
    return bytes(sink.getvalue())


async def _await_answer(patient: Patient, layout: RunLayout, job: ArrayJob, wait_s: float) -> str:
    deadline, state = time.monotonic() + wait_s, "PENDING"
    manifest = layout.manifest(0, 1)
    while not await patient.transport.exists(manifest):
        listed = await patient.shell(
            'squeue -h -t all -j "$1" -o "%T %r" 2>/dev/null || :', job.job_id
        )
        state = listed.splitlines()[0] if listed else "gone"
        if state.split()[0] in BAD_ENDS or time.monotonic() > deadline:
            why = await _why(patient, layout, state, wait_s)
            with contextlib.suppress(TransportError):  # it may have ended by itself
                await cancel(patient.transport, job)
            raise UserError(why)
        await asyncio.sleep(POLL_S)
    with tempfile.TemporaryDirectory() as folder:
        (shard,) = await collect_run(patient.transport, layout, 1, Path(folder))
    seconds = wait_s - (deadline - time.monotonic())
    return f"job {job.job_id} on {shard.manifest.node} answered in {seconds:.0f} s"


async def _why(patient: Patient, layout: RunLayout, state: str, wait_s: float) -> str:
    if state.startswith("PENDING"):
        return (
            f"The job still waits after {wait_s:.0f} s ({state}); run this again with a larger "
            "--wait, or look at the reason with the site's help."
        )
    try:
        log = await patient.shell('cat -- "$1"/*/attempt-1.log', str(layout.shards))
    except NightshardError:
        log = ""
    last = [line for line in log.splitlines() if line.strip()][-3:]
    said = " / ".join(last) or "it left no log, so look whether the nodes see the work folder"
    return f"The job ended as {state}: {said}; correct what it names and run this again."


def _identity(layout: RunLayout) -> bytes:
    """Return whose run it is: nobody's, so that ``reconcile`` of no installation touches it."""
    return RunIdentity(deployment="doctor", dag_id="doctor", dag_run_id=layout.run_key).to_bytes()
