"""What each task of ``evaluate`` does, without Airflow's decorators.

Every function can be called twice: a retry or a clear in the UI finds what the first try left.
"""

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.requests import build_requests
from nightshard.clusters.collecting import collect_run
from nightshard.clusters.layout import RunLayout, shard_name
from nightshard.clusters.models import describe_model, resolve_model
from nightshard.clusters.profile import ClusterProfile, load_named
from nightshard.clusters.script import render_script
from nightshard.clusters.staging import ensure_worker, preflight, stage_run
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob, submit_array
from nightshard.core.errors import UserError
from nightshard.core.fingerprint import ModelDescription
from nightshard.core.plan import check_shard_count, split_into_shards
from nightshard.core.requests import Request
from nightshard.core.run_params import RunParams, make_run_key, model_label, parse_run_params
from nightshard.core.run_plan import (
    RunPlan,
    check_description,
    choose_job_minutes,
    choose_num_shards,
)
from nightshard.core.settings import Settings
from nightshard.orchestration.connections import open_transport
from nightshard.results.answers import known_answers, save_answers
from nightshard.results.arrow import (
    planned_table,
    problems_to_table,
    requests_to_table,
    table_to_problems,
)
from nightshard.results.database import open_database
from nightshard.results.merge import ShardOutput, merge_shards
from nightshard.results.records import MetricRecord, ModelRecord, RunRecord, ShardRecord
from nightshard.results.score import ScoreCard
from nightshard.results.score import score as score_answers
from nightshard.results.store import RunStore, read_json, read_table, write_bytes, write_json
from nightshard.results.store import write_table as save_table
from nightshard.results.write import record_run

Json = dict[str, Any]
FIRST_ATTEMPT = 1

WORKER_BYTES = 1024**2
"""Room that the worker's archive needs with plenty to spare."""

ANSWER_BYTES_PER_TOKEN = 8
"""Room set aside for answers: about 4 characters a token, held as a part and in the output."""

log = logging.getLogger(__name__)


def _settings() -> Settings:
    return Settings.from_env(os.environ)


def _profile(name: str) -> ClusterProfile:
    settings = _settings()
    return load_named(settings.clusters, name, settings.variables(os.environ))


def _layout(run: RunPlan) -> RunLayout:
    return RunLayout(PurePosixPath(_profile(run.params.cluster).workdir), run.run_key)


def _store(run: RunPlan) -> RunStore:
    return RunStore(_settings().store, run.run_key)


def plan_run(values: Mapping[str, Any], dag_run_id: str, started: datetime) -> RunPlan:
    """Check what was asked, and ask the cluster about the model.

    Raises:
        UserError: one sentence on what cannot be done; nothing of the run is staged yet.
    """
    params = parse_run_params(dict(values))
    for name in params.tasks:
        registry.info(name)
    profile = _profile(params.cluster)
    num_shards = choose_num_shards(
        params.num_shards, profile.defaults.num_shards, profile.max_shards()
    )
    minutes = choose_job_minutes(
        params.max_job_hours, profile.defaults.max_job_hours, profile.limits.max_job_hours
    )
    engine = profile.engine.model_dump(mode="json")
    run_key = make_run_key(params.model, dag_run_id, started)
    layout = RunLayout(PurePosixPath(profile.workdir), run_key)
    worker, model = asyncio.run(_ask_cluster(profile, layout, params, engine["name"]))
    check_description(model)
    return RunPlan(
        run_key=run_key,
        params=params,
        model=model,
        engine=engine,
        num_shards=num_shards,
        max_job_minutes=minutes,
        worker=worker,
        started_at=started.isoformat(),
        dag_run_id=dag_run_id,
    )


async def _ask_cluster(
    profile: ClusterProfile, layout: RunLayout, params: RunParams, engine: str
) -> tuple[str, ModelDescription]:
    async with open_transport(profile) as transport:
        await preflight(transport, profile, layout, WORKER_BYTES)
        worker = await ensure_worker(transport, profile, _settings().worker_source)
        path = await resolve_model(transport, profile, params.model, params.revision)
        return worker, await describe_model(transport, profile, worker, path, engine)


def prepare(plan: Json) -> Json:
    """Make the requests, find the answers that exist, cut the rest into shards.

    Returns:
        The plan with ``requests``, ``reused`` and ``world_size``, and each shard's ``rows``.

    Raises:
        UserError: questions cannot be had, or there are fewer of them than shards.
    """
    run = RunPlan.from_dict(plan)
    store = _store(run)
    done = store.folder / "prepared.json"
    if done.exists():
        prepared: Json = read_json(done)
        return prepared
    problems, requests = _ask(run.params)
    if run.params.num_shards is not None:
        check_shard_count(run.num_shards, len(requests))
    known = known_answers(
        store.root,
        run.fingerprint,
        [] if run.params.force else [request.request_id for request in requests],
        but_of=run.run_key,
    )
    answered = set(known.column("request_id").to_pylist())
    missing = [request for request in requests if request.request_id not in answered]
    world_size = min(run.num_shards, len(missing))
    shards = split_into_shards(missing, world_size) if missing else []
    for rank, shard in enumerate(shards):
        save_table(store.input(rank, world_size), requests_to_table(shard))
    save_table(store.problems, problems_to_table(problems))
    save_table(store.requests, planned_table(requests, shards))
    save_table(store.folder / "reused.parquet", known)
    write_json(store.spec, run.spec(max(world_size, 1)))
    prepared = {
        "plan": plan,
        "requests": len(requests),
        "reused": len(answered),
        "world_size": world_size,
        "rows": [len(shard) for shard in shards],
    }
    write_json(done, prepared)
    log.info(
        "%d requests, %d answered already, %d to generate in %d shards",
        len(requests),
        len(answered),
        len(missing),
        world_size,
    )
    return prepared


def _ask(params: RunParams) -> tuple[dict[str, list[Problem]], list[Request]]:
    problems: dict[str, list[Problem]] = {}
    requests: list[Request] = []
    for name in params.tasks:
        benchmark = registry.get(name)
        problems[name] = benchmark.load(params.source.get(name))[: params.limit]
        requests += build_requests(
            benchmark,
            problems[name],
            sampling_overrides=params.sampling_overrides(),
            system_prompt=params.system_prompt,
            repeats=params.repeats,
            base_seed=params.seed,
        )
    return problems, requests


def stage(prepared: Json) -> None:
    """Copy inputs and spec to the cluster.

    Raises:
        UserError: the cluster's disk is full or its folder cannot be written.
    """
    run = RunPlan.from_dict(prepared["plan"])
    asyncio.run(_stage(run, prepared["world_size"]))


async def _stage(run: RunPlan, world_size: int) -> None:
    profile, layout, store = _profile(run.params.cluster), _layout(run), _store(run)
    files = {
        f"inputs/{shard_name(rank, world_size)}.parquet": store.input(rank, world_size).read_bytes()
        for rank in range(world_size)
    }
    files["spec.json"] = store.spec.read_bytes()
    needed = sum(map(len, files.values())) + _answer_bytes(store)
    async with open_transport(profile) as transport:
        await preflight(transport, profile, layout, needed, world_size)
        await stage_run(transport, layout, files, world_size)
    log.info("Staged %d files to %s", len(files), layout.run)


def _answer_bytes(store: RunStore) -> int:
    """Return the room that the longest possible answers would take."""
    sampling = read_table(store.requests, ["sampling", "rank"]).to_pylist()
    longest = (int(row["sampling"]["max_tokens"]) for row in sampling if row["rank"] is not None)
    return ANSWER_BYTES_PER_TOKEN * sum(longest)


def submit(prepared: Json) -> list[Json]:
    """Submit one array.

    Returns:
        For each shard: ``number`` and ``count`` for people, ``cluster``, ``job_id``, ``rank``,
        ``rows``, and ``watch``, a :class:`WatchedShard` as JSON.

    Raises:
        UserError: Slurm refused; the sentence has Slurm's words.
    """
    run = RunPlan.from_dict(prepared["plan"])
    profile, layout, world_size = _profile(run.params.cluster), _layout(run), prepared["world_size"]
    script = render_script(
        profile,
        layout,
        world_size=world_size,
        attempt=FIRST_ATTEMPT,
        max_job_minutes=run.max_job_minutes,
        worker_zip=run.worker,
        templates=_settings().templates,
    )

    async def submit_over_ssh() -> ArrayJob:
        async with open_transport(profile) as transport:
            return await submit_array(transport, layout, script, world_size, FIRST_ATTEMPT)

    job = asyncio.run(submit_over_ssh())
    how = "Found the earlier submission" if job.adopted else "Submitted"
    log.info("%s: Slurm array %s, %d elements, %s", how, job.job_id, world_size, job.name)
    return [
        {
            "number": rank + 1,
            "count": world_size,
            "cluster": profile.name,
            "job_id": job.job_id,
            "rank": rank,
            "rows": rows,
            "watch": WatchedShard(layout, rank, world_size, job, rows, run.fingerprint).to_dict(),
        }
        for rank, rows in enumerate(prepared["rows"])
    ]


def collect(prepared: Json) -> None:
    """Bring outputs and manifests into the store, each checked against its checksum."""
    run = RunPlan.from_dict(prepared["plan"])
    world_size = prepared["world_size"]
    if world_size == 0:
        return
    profile, layout, store = _profile(run.params.cluster), _layout(run), _store(run)

    async def collect_over_ssh(folder: Path) -> None:
        async with open_transport(profile) as transport:
            await collect_run(transport, layout, world_size, folder)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(collect_over_ssh(folder))
        for file in sorted(folder.iterdir()):
            write_bytes(store.outputs / file.name, file.read_bytes())
    log.info("Collected %d shards from %s", world_size, layout.outputs)


def merge(prepared: Json) -> None:
    """Merge new and reused answers.

    Raises:
        IncompleteRunError: answers are missing, foreign, doubled or of another fingerprint.
    """
    run = RunPlan.from_dict(prepared["plan"])
    store, settings, world_size = _store(run), _settings(), prepared["world_size"]
    schema = settings.worker_source / "shard_worker" / "schemas" / "manifest.schema.json"
    shards = [
        ShardOutput(store.output(rank, world_size), read_json(store.manifest(rank, world_size)))
        for rank in range(world_size)
    ]
    answers = merge_shards(
        read_table(store.requests),
        shards,
        run_key=run.run_key,
        fingerprint=run.fingerprint,
        manifest_schema=json.loads(schema.read_text()),
        reused=read_table(store.folder / "reused.parquet"),
    )
    save_table(store.answers, answers)
    save_answers(store.root, run.fingerprint, run.run_key, answers)
    log.info("Merged %d answers, %d of them from earlier runs", len(answers), prepared["reused"])


def score(prepared: Json) -> None:
    """Judge every answer; one benchmark's failure leaves the others' scores standing.

    Raises:
        UserError: no benchmark could be scored.
    """
    store = _store(RunPlan.from_dict(prepared["plan"]))
    card = score_answers(
        read_table(store.requests),
        table_to_problems(read_table(store.problems)),
        read_table(store.answers),
    )
    for sentence in card.failures.values():
        log.error("%s", sentence)
    if not headline(card.metrics):
        raise UserError(" ".join(card.failures.values()) or "There was nothing to score.")
    save_table(store.verdicts, card.verdicts)
    write_json(store.scorecard, card.to_dict())
    for metric in headline(card.metrics):
        log.info("%s: accuracy %.3f, n=%d", metric.benchmark, metric.value, metric.n)


def record(prepared: Json, dag_id: str) -> Json:
    """Write run, shards and scores to the database.

    Returns:
        What a person wants to know at the end: ``run_key``, ``requests``, ``reused``,
        ``submitted`` and ``shards`` (array elements), ``scores``, ``failures``, ``wall_seconds``.
    """
    run = RunPlan.from_dict(prepared["plan"])
    store, world_size = _store(run), prepared["world_size"]
    card = ScoreCard.from_dict(read_json(store.scorecard))
    finished = datetime.now(UTC)
    wall = (finished - run.started).total_seconds()
    manifests = [read_json(store.manifest(rank, world_size)) for rank in range(world_size)]
    label = model_label(run.params.model)
    record_run(
        open_database(_settings().database_url),
        RunRecord(
            run_key=run.run_key,
            model=ModelRecord(name=label, revision=run.model.revision, path=run.model.path),
            fingerprint=run.fingerprint,
            fingerprint_content=run.fingerprint_content,
            cluster=run.params.cluster,
            status="scored" if not card.partial else "partially scored",
            num_shards=world_size,
            requests=prepared["requests"],
            reused=prepared["reused"],
            params=run.params.model_dump(mode="json"),
            spec=read_json(store.spec),
            dag_id=dag_id,
            dag_run_id=run.dag_run_id,
            answers_url=str(store.answers),
            started_at=run.started,
            finished_at=finished,
            wall_seconds=wall,
            shards=tuple(ShardRecord.from_manifest(manifest) for manifest in manifests),
            metrics=tuple(card.metrics),
        ),
    )
    return {
        "run_key": run.run_key,
        "requests": prepared["requests"],
        "reused": prepared["reused"],
        "submitted": world_size,
        "shards": world_size,
        "scores": [
            {**asdict(metric), "accuracy": metric.value, "model": label}
            for metric in headline(card.metrics)
        ],
        "failures": card.failures,
        "wall_seconds": wall,
    }


def headline(metrics: Sequence[MetricRecord]) -> list[MetricRecord]:
    """Choose each benchmark's accuracy over all its problems."""
    return [one for one in metrics if one.metric == "accuracy" and not one.subset]
