"""The buttons of a shard's task: to its log on the cluster and to its Slurm job.

They lead to Nightshard's own pages in Airflow's API server, which find the latest attempt when they
are opened. So a button that Airflow stores once, when the task defers, stays right in all attempts,
and works through a tunnel or a proxy, since it begins at the path where Airflow is served.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import attrs
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/nightshard"
"""Where the API server serves the pages."""


def views() -> list[dict[str, Any]]:
    """Return the pages that Airflow shows in its own: in the navigation, and for each DAG run."""
    pages = f"{_served_below()}{PAGES}"
    return [
        {
            "name": "Leaderboard",
            "href": f"{pages}/",
            "destination": "nav",
            "url_route": "leaderboard",
            "category": "browse",
        },
        {
            "name": "Shards",
            "href": f"{pages}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "shards",
        },
    ]


def shard_page(dag_id: str, dag_run_id: str, rank: int, page: str) -> str:
    """Return the path of a shard's page below the address of Airflow."""
    return f"{PAGES}/dags/{quote(dag_id)}/runs/{quote(dag_run_id, safe='')}/shards/{rank}/{page}"


def _link(ti_key: "TaskInstanceKey", page: str) -> str:
    return _served_below() + shard_page(ti_key.dag_id, ti_key.run_id, ti_key.map_index, page)


def _served_below() -> str:
    """Return the path under which Airflow is served; empty, or with a leading slash."""
    from airflow.sdk.configuration import conf

    address: str = conf.get("api", "base_url", fallback="")
    return urlsplit(address).path.rstrip("/")


@attrs.define()
class RemoteLogLink(BaseOperatorLink):
    """The shard's log on the cluster, as it grows."""

    name: str = "Remote log"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        """Return the path of the page; the map index is the shard's rank."""
        return _link(ti_key, "log")


@attrs.define()
class SlurmJobLink(BaseOperatorLink):
    """The shard's job on the site's own portal, or what is known of it."""

    name: str = "Slurm job"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        """Return the path that leads there."""
        return _link(ti_key, "job")


@attrs.define()
class AskedByLink(BaseOperatorLink):
    """From an evaluation to the run of another DAG that asked for it."""

    name: str = "Asked by"

    def get_link(self, operator: "BaseOperator", *, ti_key: Any) -> str:
        """Return the path of that run's page; empty where a person asked.

        Airflow hands in the task instance itself, in the process that has just run the task.
        """
        asked = ti_key.get_template_context()["params"].get("asked_by") or ""
        dag_id, separator, run_id = str(asked).partition("/")
        if not separator:
            return ""
        return f"{_served_below()}/dags/{quote(dag_id)}/runs/{quote(run_id, safe=':+')}"


SHARD_LINKS: tuple[BaseOperatorLink, ...] = (RemoteLogLink(), SlurmJobLink())

ASKED_BY: tuple[BaseOperatorLink, ...] = (AskedByLink(),)


def with_links(step: Any, links: tuple[BaseOperatorLink, ...]) -> Any:
    """Give the task of a step its buttons; return the step."""
    step.operator.operator_extra_links = links
    return step
