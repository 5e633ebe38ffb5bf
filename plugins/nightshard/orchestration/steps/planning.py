"""Deciding what a run is: the task ``plan``."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nightshard.benchmarks import registry
from nightshard.clusters.detect import AUTO, check_filled_in
from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.models import ADAPTER_FILE, describe_model, resolve_model
from nightshard.clusters.profile import ClusterProfile, profile_names
from nightshard.clusters.rehearsal import expected_start
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
from nightshard.orchestration.connections import NoConnectionError, open_transport
from nightshard.orchestration.fetching import fetcher
from nightshard.orchestration.steps import current_settings, layout_of, profile_named

log = logging.getLogger(__name__)

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
    if params.cluster == AUTO:
        params = params.model_copy(update={"cluster": first_to_start(params.max_job_hours)})
    profile = profile_named(params.cluster)
    check_filled_in(profile)
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


def first_to_start(max_job_hours: float | None) -> str:
    """Return the cluster on which a shard would start first, among those with a connection.

    Raises:
        UserError: none of them takes the job; the sentence has each one's reason.
    """
    starts: dict[str, datetime] = {}
    reasons: list[str] = []
    for name in profile_names(current_settings().clusters):
        try:
            profile = profile_named(name)
            check_filled_in(profile)
            starts[name] = asyncio.run(_expected_start(profile, max_job_hours))
        except NoConnectionError:
            continue
        except (UserError, TransportError) as error:
            reasons.append(f"{name}: {str(error).rstrip('.')}")
    for name, start in starts.items():
        log.info("On %s a shard would start at %s", name, start.isoformat(" ", "minutes"))
    for reason in reasons:
        log.info("Left out: %s", reason)
    if not starts:
        why = f": {'; '.join(reasons)}" if reasons else ", as Airflow has no connection to any"
        raise UserError(f"No cluster can take the run{why}.")
    return min(starts, key=lambda name: starts[name])


async def _expected_start(profile: ClusterProfile, max_job_hours: float | None) -> datetime:
    minutes = choose_job_minutes(
        max_job_hours, profile.defaults.max_job_hours, profile.limits.max_job_hours
    )
    async with open_transport(profile) as transport:
        return await expected_start(transport, profile, minutes, current_settings().templates)


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
        fetch = fetcher(transport, profile)
        path = await resolve_model(transport, profile, params.model, params.revision, fetch=fetch)
        adapter = None
        if params.adapter is not None:
            name, revision = split_revision(params.adapter)
            adapter = await resolve_model(
                transport, profile, name, revision, holds=ADAPTER_FILE, fetch=fetch
            )
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
