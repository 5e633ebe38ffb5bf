"""The pages of :mod:`nightshard.web` inside Airflow's API server: its login, its database.

This is the server's side of Airflow, which may read the metadata database; tasks may not.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from nightshard.core.run_plan import RunPlan
from nightshard.core.task_states import SHARD_TASK
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.steps import current_settings, layout_of, profile_of
from nightshard.web.pages import NotThereError
from nightshard.web.runs import Run
from nightshard.web.shards import ShardTask

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from sqlalchemy.orm import Session

    from nightshard.clusters.profile import ClusterProfile
    from nightshard.clusters.transport import Transport


RESULTS_OF = "evaluate"
"""Whoever may see this DAG's runs may see all scores and answers."""


def build_app() -> "FastAPI":
    """Build the app behind Airflow's own login and rights on DAGs."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag

    from nightshard.web.app import create_app
    from nightshard.web.source import Source

    may_read = requires_access_dag("GET", DagAccessEntity.TASK_LOGS)
    may_stop = requires_access_dag("PUT", DagAccessEntity.TASK_INSTANCE)
    settings = current_settings()
    return create_app(
        AirflowDatabase(),
        may_read,
        may_stop,
        login_page,
        source=Source(settings.database_url, settings.store),
        may_see=requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=RESULTS_OF),
    )


def login_page(request: "Request") -> str:
    """Return where to log in, leading back to a request; any auth manager serves it there."""
    prefix = request.scope.get("root_path", "").rpartition("/")[0]
    return f"{prefix}/api/v2/auth/login?{urlencode({'next': str(request.url)})}"


class AirflowDatabase:
    """Runs as the metadata database knows them, and connections to their clusters."""

    def run(self, dag_id: str, dag_run_id: str) -> Run:
        """See :meth:`nightshard.web.runs.Airflow.run`."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            found = session.scalar(
                select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == dag_run_id)
            )
            if found is None:
                raise NotThereError(f"The DAG {dag_id!r} has no run {dag_run_id!r}.")
            bare = Run(dag_id, dag_run_id, str(found.state))
            prepared = _returned(session, dag_id, dag_run_id, "prepare_dataset")
            plan = prepared["plan"] if prepared else _returned(session, dag_id, dag_run_id, "plan")
            tasks = _tasks(session, dag_id, dag_run_id)
        if plan is None:
            return bare
        run = RunPlan.from_dict(plan)
        profile = profile_of(run)
        layout = layout_of(profile, run.run_key)
        shards = None
        if prepared is not None:
            shards = tuple(
                ShardTask(
                    layout,
                    rank,
                    prepared["world_size"],
                    rows,
                    run.fingerprint,
                    *tasks.get((SHARD_TASK, rank), (None, 0, None))[:2],
                )
                for rank, rows in enumerate(prepared["rows"])
            )
        return replace(
            bare,
            run_key=run.run_key,
            model=run.params.model,
            profile=profile,
            layout=layout,
            shards=shards,
            submitted_at=tasks.get(("submit_shards", -1), (None, 0, None))[2],
        )

    def deployment(self) -> str | None:
        """See :meth:`nightshard.web.runs.Airflow.deployment`."""
        from airflow.models import Variable

        from nightshard.orchestration.deployment import VARIABLE

        found: str | None = Variable.get(VARIABLE, default_var=None)
        return found

    def transport(self, profile: "ClusterProfile") -> "Transport":
        """See :meth:`nightshard.web.runs.Airflow.transport`."""
        return open_transport(profile)


def _returned(session: "Session", dag_id: str, dag_run_id: str, task_id: str) -> Any:
    """Return what a task returned, None where it has not (yet)."""
    from airflow.models.xcom import XCOM_RETURN_KEY, XComModel

    query = XComModel.get_many(
        run_id=dag_run_id, key=XCOM_RETURN_KEY, task_ids=task_id, dag_ids=dag_id, limit=1
    )
    row = session.execute(query.with_only_columns(XComModel.value)).first()
    if row is None:
        return None
    # The execution API stores a JSON text, in a column that may be JSON itself.
    return json.loads(row.value) if isinstance(row.value, str) else row.value


def _tasks(
    session: "Session", dag_id: str, dag_run_id: str
) -> dict[tuple[str, int], tuple[str | None, int, str | None]]:
    """Return state, try and end of each task instance, by task and map index."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    columns = (
        TaskInstance.task_id,
        TaskInstance.map_index,
        TaskInstance.state,
        TaskInstance.try_number,
        TaskInstance.end_date,
    )
    query = select(*columns).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == dag_run_id)
    return {
        (row.task_id, row.map_index): (
            str(row.state) if row.state else None,
            row.try_number,
            row.end_date.isoformat() if row.end_date else None,
        )
        for row in session.execute(query)
    }
