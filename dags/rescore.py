"""Judge the stored answers of runs again."""

from datetime import timedelta

from airflow.sdk import dag

from nightshard.orchestration import rescore_tasks


@dag(
    schedule=None,
    params=rescore_tasks.rescore_form(),
    catchup=False,
    tags=["nightshard", "scores"],
    default_args={"owner": "nightshard", "retries": 1, "retry_delay": timedelta(seconds=30)},
    is_paused_upon_creation=False,
    doc_md=rescore_tasks.RESCORE_DOC,
)
def rescore() -> None:
    """Judge each run."""
    rescore_tasks.rescore_run.expand(run_key=rescore_tasks.runs())


rescore_dag = rescore()
