"""Deciding what a run is: the task ``plan``."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nightshard.benchmarks import registry
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.models import ADAPTER_FILE, describe_model, resolve_model
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.staging import ensure_worker, preflight
from nightshard.core.errors import UserError
from nightshard.core.fingerprint import ModelDescription
from nightshard.core.run_params import RunParams, make_run_key, parse_run_params, split_revision
from nightshard.core.run_plan import (
    RunPlan,
    check_description,
    choose_job_minutes,
    choose_num_shards,
)
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.steps import current_settings, layout_of, profile_named

SERVED_ELSEWHERE = "openai"
"""The engine whose model has no folder on the cluster."""

WORKER_BYTES = 1024**2
"""Room that the worker's archive needs with plenty to spare."""


def plan_run(
    values: Mapping[str, Any], dag_run_id: str, started: datetime, deployment: str
) -> RunPlan:
    """Check what was asked, and ask the cluster about the model.

    Args:
        values: the params.
        dag_run_id: Airflow's id of the run.
        started: when the run became due.
        deployment: id of this installation.

    Raises:
        UserError: one sentence on what cannot be done; nothing of the run is staged yet.
    """
    params = parse_run_params(dict(values))
    for name in params.tasks:
        registry.info(name)
    _check_wishes(params)
    profile = profile_named(params.cluster)
    num_shards = choose_num_shards(
        params.num_shards, profile.defaults.num_shards, profile.limits.max_shards
    )
    minutes = choose_job_minutes(
        params.max_job_hours, profile.defaults.max_job_hours, profile.limits.max_job_hours
    )
    engine = profile.engine.model_dump(mode="json")
    run_key = make_run_key(params.model, dag_run_id, started, deployment)
    layout = layout_of(profile, run_key)
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
        balance=params.balance or profile.defaults.balance,
    )


def _check_wishes(params: RunParams) -> None:
    if params.gate is not None or params.publish == "hub":
        # Few runs ask for these, and what they need takes long to import.
        from nightshard.orchestration.steps.afterwards import check_wishes

        check_wishes(params)


async def _ask_cluster(
    profile: ClusterProfile, layout: RunLayout, params: RunParams, engine: str
) -> tuple[str, ModelDescription]:
    async with open_transport(profile) as transport:
        await preflight(transport, profile, layout, WORKER_BYTES)
        worker = await ensure_worker(transport, profile, current_settings().worker_source)
        if engine == SERVED_ELSEWHERE:
            return worker, await describe_model(
                transport, profile, worker, _served_name(params), engine=engine
            )
        path = await resolve_model(transport, profile, params.model, params.revision)
        adapter = None
        if params.adapter is not None:
            name, revision = split_revision(params.adapter)
            adapter = await resolve_model(transport, profile, name, revision, holds=ADAPTER_FILE)
        return worker, await describe_model(
            transport, profile, worker, path, engine=engine, adapter=adapter
        )


def _served_name(params: RunParams) -> str:
    """Name a model that is served elsewhere; the revision is what the user says of it.

    Raises:
        UserError: an adapter was asked for.
    """
    if params.adapter is not None:
        raise UserError(
            f"The adapter {params.adapter} cannot be put on a model that is served elsewhere; "
            "serve it there, and leave it out here."
        )
    return params.model if params.revision is None else f"{params.model} at {params.revision}"
