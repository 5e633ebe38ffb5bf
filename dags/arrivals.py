"""Evaluate checkpoints as they are announced by an event of an asset."""

import os

from airflow.sdk import dag

from nightshard.checkpoints.config import read_nightly
from nightshard.core.settings import Settings
from nightshard.orchestration import nightly_tasks, tasks

settings = Settings.from_env(os.environ)
night = read_nightly(settings.nightly, settings.variables(os.environ))


@dag(
    schedule=[nightly_tasks.CHECKPOINTS],
    tags=["nightshard", "evaluation"],
    default_args=tasks.PATIENT,
    is_paused_upon_creation=False,
    max_active_runs=16,
    doc_md=nightly_tasks.ARRIVALS_DOC,
)
def arrivals() -> None:
    """Read the events; evaluate on each cluster."""
    nightly_tasks.evaluate_announced(nightly_tasks.announced(), night, settings)


arrivals_dag = arrivals()
