"""The tasks of ``rescore``."""

from typing import Any

from airflow.sdk import Param, task

from nightshard.orchestration.tasks import Json, one_sentence

RESCORE_DOC = """
Judges the stored answers of runs again, with this version's judges: no GPU and no cluster.

The database keeps the scores of each judge version, and a run's folder keeps the earlier verdicts.
Each task returns how many answers changed sides, and which.
"""


def rescore_form() -> dict[str, Param]:
    """Return the form of the DAG."""
    return {
        "runs": Param(
            [],
            type="array",
            items={"type": "string"},
            title="Runs",
            description="Run keys as `nightshard results` shows them, one a line.",
        ),
        "benchmark": Param(
            None,
            type=["string", "null"],
            title="Benchmark",
            description="In place of runs: all runs that asked this benchmark.",
        ),
    }


@task
@one_sentence
def runs(**context: Any) -> list[str]:
    """List the runs to judge."""
    from nightshard.orchestration.steps import rescoring

    params = context["params"]
    return rescoring.chosen_runs(params["runs"], params["benchmark"])


@task(map_index_template="{{ task.op_kwargs['run_key'] }}")
@one_sentence
def rescore_run(run_key: str) -> Json:
    """Judge one run."""
    from nightshard.orchestration.steps import rescoring

    return rescoring.rescore_run(run_key)
