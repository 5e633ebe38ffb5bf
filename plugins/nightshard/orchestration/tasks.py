"""The steps of ``evaluate``, each a thin edge around pure functions of the rooms below.

Between two steps only small JSON travels as XCom; rows and answers lie in the artefact store under
the run's key, so that any executor's worker can take the next step.
"""

import functools
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias, task
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
)

from nightshard.core.errors import IncompleteRunError, UserError
from nightshard.core.run_params import model_label

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Json = dict[str, Any]

CLAIM_WAIT_S = 20
"""Time between two looks at whether another run still generates the same answers."""

EVALUATE_DOC = """
Evaluates one checkpoint on one or more benchmarks.

| step | what it does |
|---|---|
| plan | checks the parameters, the cluster and the model; nothing of the run is staged before it passes |
| prepare_dataset | loads the questions, makes a request of each repeat, finds the answers that exist already and cuts the rest into shards |
| stage | copies the shards' inputs and the run's spec to the cluster |
| submit_shards | submits one Slurm array (several where the site limits their size) |
| shard 1 of N … | follows one array element, without occupying a worker; gives it another attempt where its end was not its own fault |
| collect, merge | brings the answers back and refuses anything incomplete |
| score, record | judges the answers and writes the scores to the database |
| gate, publish | compares with a baseline; brings answers and scores to the Hub or into a folder |
| notify | tells whom `include/notifications.yaml` names |
"""  # noqa: E501 (a markdown table's row cannot be broken)


PATIENT: Json = {
    "owner": "nightshard",
    # A login node may be down for minutes; bad input and lost shards fail without a retry.
    "retries": 5,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
}
"""Defaults of the tasks of a DAG that works with clusters."""

SCORES = AssetAlias("nightshard_scores")
"""Stands for the scores of every model; a DAG may be scheduled on it."""


def scores_of(model: str) -> Asset:
    """Return the asset of a model's scores, ``nightshard://scores/<name>``."""
    name = model_label(model)
    return Asset(name=f"nightshard_scores: {name}", uri=f"nightshard://scores/{quote(name)}")


def one_sentence(step: Callable[P, R]) -> Callable[P, R]:
    """Fail a task at once, with the sentence alone, on an error that no retry can mend."""

    @functools.wraps(step)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return step(*args, **kwargs)
        except (UserError, IncompleteRunError) as error:
            raise AirflowFailException(str(error)) from None

    return wrapped


@task
@one_sentence
def plan(**context: Any) -> Json:
    """Check what was asked and what the cluster says of the model; decide the run's key."""
    from nightshard.orchestration.deployment import deployment_id
    from nightshard.orchestration.steps import planning

    dag_run = context["dag_run"]
    decided = planning.plan_run(
        context["params"], dag_run.run_id, dag_run.run_after, deployment_id()
    )
    log.info("Run %s, fingerprint %s", decided.run_key, decided.fingerprint)
    return decided.to_dict()


@task
@one_sentence
def prepare_dataset(plan: Json, **context: Any) -> Json:
    """Make the requests, look up the answers that exist, cut the rest into shards.

    While another run generates answers of the same checkpoint to the same benchmarks, this one
    waits for them without occupying a worker.
    """
    from nightshard.orchestration.deployment import deployment_id
    from nightshard.orchestration.steps import preparing

    ti, dag_id = context["ti"], context["dag"].dag_id

    def going(dag_id: str, run_id: str) -> bool:
        return bool(ti.get_dr_count(dag_id, run_ids=[run_id], states=["queued", "running"]))

    if plan["params"]["dry_run"]:
        _preview(plan, ti)
    others = preparing.claim(plan, deployment_id(), dag_id, going)
    if others:
        log.info("Waiting for %s, which generates the same answers", " and ".join(others))
        later = datetime.now(UTC) + timedelta(seconds=CLAIM_WAIT_S)
        raise AirflowRescheduleException(later)  # type: ignore[no-untyped-call]
    return preparing.prepare(plan)


def _preview(plan: Json, ti: Any) -> None:
    """Say what the run would do; what follows is skipped."""
    from nightshard.orchestration.steps import previewing

    preview = previewing.preview(plan)
    for line in preview["text"].splitlines():
        log.info("%s", line)
    ti.xcom_push("preview", preview)
    raise AirflowSkipException("A dry run: nothing was submitted. The log has all of it.")


@task
@one_sentence
def stage(prepared: Json, **context: Any) -> Json:
    """Copy inputs and spec to the cluster, the spec last."""
    from nightshard.clusters.documents import RunIdentity
    from nightshard.orchestration.deployment import deployment_id
    from nightshard.orchestration.steps import moving

    if prepared["world_size"] == 0:
        raise AirflowSkipException("Every answer exists already; nothing to stage or submit.")
    dag_run = context["dag_run"]
    identity = RunIdentity(
        deployment=deployment_id(), dag_id=dag_run.dag_id, dag_run_id=dag_run.run_id
    )
    moving.stage(prepared, identity)
    return prepared


@task
@one_sentence
def submit_shards(prepared: Json) -> list[Json]:
    """Submit one array and say for each shard what to watch."""
    from nightshard.orchestration.steps import moving

    return moving.submit(prepared)


# Where every answer exists no shard ran, and in a dry run nothing was prepared either.
@task(trigger_rule="none_failed_min_one_success")
@one_sentence
def collect(prepared: Json) -> Json:
    """Bring outputs and manifests back, checking each against its checksum."""
    from nightshard.orchestration.steps import moving

    moving.collect(prepared)
    return prepared


@task
@one_sentence
def merge(prepared: Json) -> Json:
    """Merge new and existing answers; complete or not at all."""
    from nightshard.orchestration.steps import scoring

    scoring.merge(prepared)
    return prepared


@task(outlets=[SCORES])
@one_sentence
def record(prepared: Json, **context: Any) -> Json:
    """Write the run, its shards and its scores to the database; twice changes nothing.

    The asset of the model's scores is updated.
    """
    from nightshard.orchestration.steps import recording

    recorded = recording.record(prepared, context["dag"].dag_id)
    plan = prepared["plan"]
    accuracies = {one["benchmark"]: one["accuracy"] for one in recorded["scores"]}
    context["outlet_events"][SCORES].add(
        scores_of(str(plan["params"]["model"])),
        extra={"run_key": plan["run_key"], "accuracy": accuracies},
    )
    return recorded


@task
@one_sentence
def gate(recorded: Json) -> Json:
    """Fail where the run is worse than its baseline; its scores stay as they are."""
    from nightshard.orchestration.steps import afterwards

    ruling = afterwards.gate(recorded["run_key"])
    if ruling is None:
        raise AirflowSkipException("No gate was asked for.")
    if ruling["verdict"] == "worse":
        reasons = " ".join(f"{one}." for one in ruling["reasons"])
        raise AirflowFailException(f"Worse than {ruling['baseline']}. {reasons}")
    return ruling


@task
@one_sentence
def publish(recorded: Json) -> str:
    """Bring answers, scores and card to the Hub or into a folder; return where they are."""
    from nightshard.orchestration.steps import afterwards

    address = afterwards.publish(recorded["run_key"])
    if address is None:
        raise AirflowSkipException("Publishing is off, or the Hub is not set up.")
    return address


@task(retries=2)
@one_sentence
def notify(**context: Any) -> int:
    """Tell whom the group wants to be told, once a run; return how many messages went out."""
    from nightshard.orchestration import notifying

    count = notifying.notify_of_run(context)
    if count == 0:
        raise AirflowSkipException("Nobody wants to be told.")
    return count
