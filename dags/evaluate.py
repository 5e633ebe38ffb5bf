"""Evaluate one checkpoint: questions out, one Slurm array, answers and scores back."""

import os

from airflow.sdk import dag

from nightshard.core.settings import Settings
from nightshard.orchestration import tasks
from nightshard.orchestration.links import ASKED_BY, with_links
from nightshard.orchestration.params import evaluate_form
from nightshard.orchestration.scoring import ScoreOperator
from nightshard.orchestration.shard import SHARD_LABEL, ShardSensor

settings = Settings.from_env(os.environ)


@dag(
    schedule=None,
    params=evaluate_form(settings),
    tags=["nightshard", "evaluation"],
    default_args=tasks.PATIENT,
    is_paused_upon_creation=False,
    max_active_runs=16,
    doc_md=tasks.EVALUATE_DOC,
)
def evaluate() -> None:
    """Plan, prepare, stage, submit; watch the shards; collect, merge, score, record; and after."""
    plan = with_links(tasks.plan(), ASKED_BY)
    prepared = tasks.prepare_dataset(plan)
    staged = tasks.stage(prepared)
    shards = tasks.submit_shards(staged)
    watched = ShardSensor.partial(task_id="shard", map_index_template=SHARD_LABEL).expand(
        shard=shards
    )
    collected = tasks.collect(prepared)
    merged = tasks.merge(collected)
    scored = ScoreOperator(task_id="score", prepared=merged)
    recorded = tasks.record(scored.output)
    after = [tasks.gate(recorded), tasks.publish(recorded)]

    watched >> collected
    if settings.notifications.exists():
        after >> tasks.notify().as_teardown()


evaluate_dag = evaluate()
