"""The same evaluation with several numbers of shards: which is best?"""

import os
from datetime import timedelta

from airflow.sdk import dag

from nightshard.core.settings import Settings
from nightshard.orchestration import sweep_tasks

settings = Settings.from_env(os.environ)


@dag(
    schedule=None,
    params=sweep_tasks.sweep_form(settings),
    tags=["nightshard", "scaling"],
    default_args={"owner": "nightshard", "retries": 2, "retry_delay": timedelta(seconds=20)},
    is_paused_upon_creation=False,
    max_active_runs=1,
    doc_md=sweep_tasks.SWEEP_DOC,
)
def scaling_sweep() -> None:
    """Plan; evaluate with each number of shards; compare."""
    planned = sweep_tasks.plan_sweep()
    sweep_tasks.evaluate_each(planned) >> sweep_tasks.report(planned)


scaling_sweep_dag = scaling_sweep()
