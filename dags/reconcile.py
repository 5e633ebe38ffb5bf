"""Find and mend what was left behind on the clusters."""

from datetime import timedelta

from airflow.sdk import dag

from nightshard.orchestration import reconcile_tasks


@dag(
    schedule="*/15 * * * *",
    params=reconcile_tasks.reconcile_form(),
    catchup=False,
    tags=["nightshard", "maintenance"],
    default_args={"owner": "nightshard", "retries": 1, "retry_delay": timedelta(seconds=30)},
    is_paused_upon_creation=False,
    max_active_runs=1,
    doc_md=reconcile_tasks.RECONCILE_DOC,
)
def reconcile() -> None:
    """Look at each cluster."""
    reconcile_tasks.reconcile_cluster.expand(cluster=reconcile_tasks.clusters())


reconcile_dag = reconcile()
