"""The tasks of ``nightly`` and ``arrivals``: find checkpoints and evaluate each."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Param, task, task_group
from airflow.sdk.exceptions import AirflowException

from nightshard.checkpoints.config import DEFAULT_CAP, Nightly
from nightshard.checkpoints.found import SourceError
from nightshard.core.settings import Settings
from nightshard.orchestration.evaluations import EvaluateCheckpointOperator
from nightshard.orchestration.params import default_cluster
from nightshard.orchestration.tasks import Json, one_sentence

if TYPE_CHECKING:
    from nightshard.checkpoints.found import Interval

log = logging.getLogger(__name__)

CHECKPOINTS = Asset("nightshard_checkpoints", uri="nightshard://checkpoints")
"""Whoever makes checkpoints announces them by an event of this asset."""

NIGHTLY_DOC = """
Finds the checkpoints that appeared in the run's interval and evaluates each in a run of `evaluate`.

| step | what it does |
|---|---|
| sources, find | asks each source of `include/nightly.yaml`; one that cannot be reached is red, and the others go on |
| choose | decides for each cluster what runs there, and in which order |
| evaluate | starts one run of `evaluate` a checkpoint and waits for it without a worker, so many at a time as the cluster's cap says |
| report | says what was found; red where a source or an evaluation failed |

A checkpoint has one run, whoever asks for it: another night, a backfill or a second try finds it,
and runs it again only where it failed. `since` and `until` choose another interval by hand.
"""  # noqa: E501 (a markdown table's row cannot be broken)

ARRIVALS_DOC = """
Evaluates a checkpoint as soon as it is announced: by an event of the asset `nightshard_checkpoints`
whose extra holds `model` and, if wanted, `revision` and other parameters of `evaluate`.
"""


def nightly_form() -> dict[str, Param]:
    """Return the form of ``nightly``."""
    when = "Empty: as the schedule says, or the last day for a run by hand."
    return {
        name: Param(
            None,
            type=["string", "null"],
            format="date-time",
            title=name.capitalize(),
            description=f"{what} {when}",
        )
        for name, what in (
            ("since", "Checkpoints that appeared then or later."),
            ("until", "Checkpoints that appeared before then."),
        )
    }


@task
@one_sentence
def sources() -> list[str]:
    """List the sources."""
    from nightshard.orchestration.steps import finding

    return list(finding.current_nightly().required().sources)


@task(
    map_index_template="{{ task.op_kwargs['source'] }}",
    retries=2,
    retry_delay=timedelta(seconds=10),
    retry_exponential_backoff=False,
)
@one_sentence
def find(source: str, **context: Any) -> list[Json]:
    """Ask a source what appeared in the interval."""
    from nightshard.orchestration.steps import finding

    try:
        return finding.find(source, _interval(context))
    except SourceError as error:
        raise AirflowException(str(error)) from None


def _interval(context: Mapping[str, Any]) -> "Interval":
    from nightshard.orchestration.steps import finding

    asked = context["params"]
    start, end = (context.get(f"data_interval_{edge}") for edge in ("start", "end"))
    return finding.interval_asked(asked.get("since"), asked.get("until"), start, end)


@task
@one_sentence
def announced(**context: Any) -> list[Json]:
    """Read what the events that started this run announce."""
    events = context["triggering_asset_events"][CHECKPOINTS]
    return [dict(event.extra) for event in events]


@task(trigger_rule="all_done")
@one_sentence
def choose(found: list[list[Json]], cluster: str, **context: Any) -> list[Json]:
    """Choose what is evaluated on a cluster; a source that failed does not hold the others up."""
    from nightshard.orchestration.steps import finding

    everything = [one for its in found or () for one in its or ()]
    return finding.choose(everything, cluster, _asked_by(context))


@task
@one_sentence
def choose_announced(extras: list[Json], cluster: str, **context: Any) -> list[Json]:
    """Choose what is evaluated on a cluster."""
    from nightshard.orchestration.steps import finding

    return finding.choose_announced(extras, cluster, _asked_by(context))


def _asked_by(context: Mapping[str, Any]) -> str:
    return f"{context['dag_run'].dag_id}/{context['dag_run'].run_id}"


@task(trigger_rule="none_failed")
def report(found: list[list[Json]]) -> int:
    """Say how many checkpoints there were; a quiet night is a success."""
    count = sum(len(its or ()) for its in found or ())
    log.info("%d new checkpoints" if count else "Nothing new", *([count] if count else []))
    return count


def evaluate_found(found: Any, nightly: Nightly) -> list[Any]:
    """Evaluate what the sources found, on each cluster so many at a time as its cap says."""
    caps = nightly.config.caps_by_cluster() if nightly.config else {}
    return [_on_cluster(choose, found, cluster, cap) for cluster, cap in caps.items()]


def evaluate_announced(extras: Any, nightly: Nightly, settings: Settings) -> list[Any]:
    """Evaluate what was announced, as :func:`evaluate_found`."""
    caps = nightly.config.caps_by_cluster() if nightly.config else {}
    caps = caps or {default_cluster(settings): DEFAULT_CAP}
    return [_on_cluster(choose_announced, extras, cluster, cap) for cluster, cap in caps.items()]


def _on_cluster(chooser: Any, found: Any, cluster: str, cap: int) -> Any:
    @task_group(group_id=cluster)
    def on_cluster() -> Any:
        evaluation = EvaluateCheckpointOperator.partial(
            task_id="evaluate",
            map_index_template="{{ task.trigger_run_id }}",
            max_active_tis_per_dag=cap,
        )
        return evaluation.expand_kwargs(chooser(found, cluster))

    return on_cluster()
