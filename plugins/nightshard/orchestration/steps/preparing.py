"""From questions to shards: the task ``prepare_dataset``."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.judges.sandbox.bubblewrap import check_sandbox
from nightshard.benchmarks.requests import build_requests
from nightshard.core.checkpoints import checkpoint_of
from nightshard.core.errors import UserError
from nightshard.core.hashing import content_id
from nightshard.core.plan import check_shard_count, split_into_shards, with_past_lengths
from nightshard.core.requests import Request
from nightshard.core.run_params import RunParams
from nightshard.core.run_plan import RunPlan
from nightshard.orchestration.steps import Json, current_settings, profile_of, store_of
from nightshard.results import claims
from nightshard.results.answers import known_answers
from nightshard.results.arrow import planned_table, problems_to_table, requests_to_table
from nightshard.results.database import open_database
from nightshard.results.lengths import past_lengths
from nightshard.results.store import RunStore, read_json, write_json, write_table

if TYPE_CHECKING:
    from nightshard.core.scaling import Pace

log = logging.getLogger(__name__)


def prepare(plan: Json) -> Json:
    """Make the requests, find the answers that exist, cut the rest into shards.

    Returns:
        The plan with ``requests``, ``reused`` and ``world_size``, and each shard's ``rows``.

    Raises:
        UserError: questions cannot be had, there is no sandbox for code, there are fewer questions
            than shards, or the model has changed since an earlier try prepared the run.
    """
    run = RunPlan.from_dict(plan)
    store = store_of(run)
    done = store.folder / "prepared.json"
    if done.exists():
        prepared: Json = read_json(done)
        if RunPlan.from_dict(prepared["plan"]).fingerprint != run.fingerprint:
            raise UserError(
                f"Run {run.run_key} was prepared for another state of the model or the engine; "
                "trigger a new run instead of clearing this one."
            )
        return prepared
    asked = asked_now(run, store)
    problems, requests, missing = asked.problems, asked.requests, asked.missing
    known, world_size = asked.known, asked.world_size
    answered = known.num_rows
    shards = split_into_shards(missing, world_size) if missing else []
    for rank, shard in enumerate(shards):
        write_table(store.input(rank, world_size), requests_to_table(shard))
    write_table(store.problems, problems_to_table(problems))
    write_table(store.requests, planned_table(requests, shards))
    write_table(store.folder / "reused.parquet", known)
    write_json(store.spec, run.spec(max(world_size, 1)))
    prepared = {
        "plan": plan,
        "requests": len(requests),
        "reused": answered,
        "world_size": world_size,
        "rows": [len(shard) for shard in shards],
    }
    write_json(done, prepared)
    log.info(
        "%d requests, %d answered already, %d to generate in %d shards",
        len(requests),
        answered,
        len(missing),
        world_size,
    )
    return prepared


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run asks.

    Attributes:
        problems: by benchmark.
        requests: all of them.
        known: answers that exist already, a table.
        missing: requests without one, with what their answers are expected to take.
        world_size: into how many shards these are cut.
    """

    problems: Mapping[str, Sequence[Problem]]
    requests: Sequence[Request]
    known: pa.Table
    missing: Sequence[Request]
    world_size: int


def asked_now(run: RunPlan, store: RunStore) -> Asked:
    """Load the questions and look up the answers that exist; writes nothing.

    Raises:
        UserError: see :func:`prepare`.
    """
    _check_sandbox(run)
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
    missing = with_past_lengths(
        (request for request in requests if request.request_id not in answered),
        past_lengths(store.root, run.params.tasks),
    )
    wanted = _wanted_shards(run, missing) if run.params.chooses_shards else run.num_shards
    return Asked(problems, requests, known, missing, min(wanted, len(missing)))


def pace_of(run: RunPlan) -> "Pace | None":
    """Return how quickly like models went on the run's cluster; None where nobody knows."""
    from nightshard.results.pace import known_pace

    return known_pace(
        open_database(current_settings().database_url),
        run.params.cluster,
        name=run.model_name,
        family=checkpoint_of(run.params.model, run.params.revision).family,
        weights_bytes=run.model.weights_bytes,
    )


def _wanted_shards(run: RunPlan, missing: Sequence[Request]) -> int:
    from nightshard.core.scaling import choose_shards

    pace = pace_of(run)
    if pace is None:
        log.info("No earlier run tells how many shards are best; taking %d", run.num_shards)
        return run.num_shards
    most = profile_of(run).limits.max_shards or len(missing)
    tokens = sum(one.expected_tokens or one.sampling.max_tokens for one in missing)
    chosen = choose_shards(pace, tokens, run.params.optimise or "balanced", max(most, 1))
    log.info(
        "%d shards: %d output tokens are expected, a shard starts in %.0f s (%d earlier runs)",
        chosen,
        tokens,
        pace.startup,
        pace.runs,
    )
    return chosen


def claim(plan: Json, deployment: str, dag_id: str, going: Callable[[str, str], bool]) -> list[str]:
    """Make sure that no other run generates the same answers at this time.

    Args:
        plan: what ``plan`` returned.
        deployment: id of this installation.
        dag_id: of the run's DAG.
        going: whether Airflow still works on a run of a DAG.

    Returns:
        Keys of the runs to wait for; empty where this one may go on.
    """
    run = RunPlan.from_dict(plan)
    if run.params.force or (store_of(run).folder / "prepared.json").exists():
        return []
    engine = open_database(current_settings().database_url)
    holder = claims.Holder(run.run_key, deployment, dag_id, run.dag_run_id)
    asked = [f"{name} {_sampling_digest(run.params)}" for name in run.params.tasks]
    take = functools.partial(claims.take, engine, run.fingerprint, asked, holder)
    others = take()
    # Another installation's Airflow cannot be asked; its run gives its claims up by itself.
    ours = [one for one in others if one.deployment == deployment]
    gone = [one.run_key for one in ours if not going(one.dag_id, one.dag_run_id)]
    if gone:
        others = take(gone=gone)
    return [one.run_key for one in others]


def _sampling_digest(params: RunParams) -> str:
    """Return what tells runs apart that ask the same questions and share no answer.

    Repeats and limit are not in it: runs that differ in these share some.
    """
    how = {
        "sampling": params.sampling_overrides(),
        "seed": params.seed,
        "system_prompt": params.system_prompt,
    }
    return content_id(how)[:8]


def _check_sandbox(run: RunPlan) -> None:
    """Make sure, before a GPU works for it, that code can be judged, where that is done here."""
    sandboxed = any(registry.info(name).sandboxed for name in run.params.tasks)
    if sandboxed and profile_of(run).scoring.where == "airflow":
        check_sandbox()


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
