"""Every night: find the checkpoints that appeared, and evaluate each."""

import os
from datetime import UTC, datetime

from airflow.sdk import CronDataIntervalTimetable, dag

from nightshard.checkpoints.config import read_nightly
from nightshard.core.settings import Settings
from nightshard.orchestration import nightly_tasks, tasks

settings = Settings.from_env(os.environ)
night = read_nightly(settings.nightly, settings.variables(os.environ))
config = night.config


@dag(
    schedule=CronDataIntervalTimetable(config.schedule, timezone=config.timezone)
    if config and config.schedule
    else None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    params=nightly_tasks.nightly_form(),
    tags=["nightshard", "evaluation"],
    default_args=tasks.PATIENT,
    # A person switches it on when the sources are as they should be.
    is_paused_upon_creation=True,
    max_active_runs=16,
    doc_md=nightly_tasks.NIGHTLY_DOC,
)
def nightly() -> None:
    """Ask the sources; evaluate on each cluster; report."""
    found = nightly_tasks.find.expand(source=nightly_tasks.sources())
    evaluated = nightly_tasks.evaluate_found(found, night)
    evaluated >> nightly_tasks.report(found)


nightly_dag = nightly()
