"""The tasks of ``scaling_sweep``."""

from typing import Any

from airflow.sdk import Param, task

from nightshard.core.run_params import NOT_SWEPT
from nightshard.core.settings import Settings
from nightshard.orchestration.evaluations import EvaluateCheckpointOperator
from nightshard.orchestration.params import evaluate_form
from nightshard.orchestration.tasks import Json, one_sentence

SWEEP_DOC = """
The same evaluation with several numbers of shards, one after the other, so that none disturbs
another. The task `report` compares time, GPU hours, queue, start-up and utilisation, and says which
number is best for what. Later runs with *Optimise* choose by these measurements.
"""


def sweep_form(settings: Settings) -> dict[str, Param]:
    """Return the form of the DAG: that of ``evaluate`` with several numbers of shards."""
    form = evaluate_form(settings)
    shards = Param(
        [1, 2, 4, 8],
        type="array",
        items={"type": "integer", "minimum": 1},
        title="Numbers of shards",
        description="One evaluation for each.",
        section=form["num_shards"].schema["section"],
    )
    kept = {name: param for name, param in form.items() if name not in NOT_SWEPT}
    return {**kept, "shards": shards}


@task
@one_sentence
def plan_sweep(**context: Any) -> list[Json]:
    """Plan a run for each number of shards."""
    from nightshard.orchestration.steps import sweeping

    dag_run = context["dag_run"]
    return sweeping.plan_sweep(context["params"], dag_run.dag_id, dag_run.run_id)


def evaluate_each(planned: Any) -> Any:
    """Evaluate with each number of shards, one after the other."""
    return EvaluateCheckpointOperator.partial(
        task_id="evaluate",
        map_index_template="{{ task.conf['num_shards'] }} shards",
        max_active_tis_per_dagrun=1,
    ).expand_kwargs(planned)


@task(trigger_rule="all_done")
@one_sentence
def report(planned: list[Json]) -> Json:
    """Compare the runs; one that failed is named, and the others are compared all the same."""
    from nightshard.orchestration.steps import sweeping

    return sweeping.report(list(planned))
