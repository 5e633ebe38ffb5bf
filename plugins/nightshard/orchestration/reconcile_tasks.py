"""The tasks of ``reconcile``."""

import logging
from typing import Any

from airflow.sdk import Param, task
from airflow.sdk.exceptions import AirflowSkipException

from nightshard.clusters.errors import LoginError, TransportError
from nightshard.clusters.reconcile import GRACE_S
from nightshard.orchestration.tasks import Json, one_sentence

log = logging.getLogger(__name__)

RECONCILE_DOC = """
Looks every 15 minutes for what was left behind, and mends it.

| what | what is done |
|---|---|
| a job whose run was deleted or has ended, or whose shard was ended by a person | it is cancelled |
| a run that goes on although Slurm knows no job of a shard | what happens next is reported |

Only jobs that this Nightshard submitted are ever touched. A cluster that cannot be reached is
skipped until the next time.
"""


def reconcile_form() -> dict[str, Param]:
    """Return the form of the DAG."""
    return {
        "grace_s": Param(
            GRACE_S,
            type="integer",
            minimum=0,
            title="Grace in seconds",
            description="Jobs that were submitted later than so many seconds ago are left alone.",
        )
    }


@task
@one_sentence
def clusters() -> list[str]:
    """List the profiles with a connection, one for each account that they share."""
    from nightshard.orchestration.connections import is_connected
    from nightshard.orchestration.steps import reconciling

    return reconciling.distinct_clusters(is_connected)


@task(map_index_template="{{ task.op_kwargs['cluster'] }}")
@one_sentence
def reconcile_cluster(cluster: str, **context: Any) -> Json:
    """Compare one cluster with Airflow."""
    from nightshard.orchestration.deployment import deployment_id
    from nightshard.orchestration.steps import reconciling

    try:
        return reconciling.reconcile_cluster(
            cluster,
            deployment_id(),
            reconciling.ask_airflow(context["ti"]),
            grace_s=context["params"]["grace_s"],
        )
    except LoginError as error:
        if not error.failure.passing:
            raise
        raise AirflowSkipException(f"Not looked at this time: {error}") from None
    except TransportError as error:
        raise AirflowSkipException(f"Not looked at this time: {error}") from None
