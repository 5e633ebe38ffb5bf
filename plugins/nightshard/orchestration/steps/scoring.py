"""From answers to scores: the tasks ``merge`` and ``score``."""

import json
import logging
from collections.abc import Sequence

from nightshard.core.errors import UserError
from nightshard.core.run_plan import RunPlan
from nightshard.orchestration.steps import Json, current_settings, store_of
from nightshard.results.answers import save_answers
from nightshard.results.arrow import table_to_problems
from nightshard.results.merge import ShardOutput, merged_chunks, write_merged
from nightshard.results.records import MetricRecord
from nightshard.results.score import ScoreCard
from nightshard.results.score import score as score_answers
from nightshard.results.store import RunStore, read_json, read_table, write_json, write_table

log = logging.getLogger(__name__)


def merge(prepared: Json) -> None:
    """Merge new and reused answers.

    Raises:
        IncompleteRunError: answers are missing, foreign, doubled or of another fingerprint.
    """
    run = RunPlan.from_dict(prepared["plan"])
    store, settings, world_size = store_of(run), current_settings(), prepared["world_size"]
    schema = settings.worker_source / "shard_worker" / "schemas" / "manifest.schema.json"
    shards = [
        ShardOutput(store.output(rank, world_size), read_json(store.manifest(rank, world_size)))
        for rank in range(world_size)
    ]
    chunks = merged_chunks(
        read_table(store.requests),
        shards,
        run_key=run.run_key,
        fingerprint=run.fingerprint,
        manifest_schema=json.loads(schema.read_text()),
        reused=read_table(store.folder / "reused.parquet"),
    )
    answers = write_merged(store.answers, chunks)
    save_answers(store.root, run.fingerprint, run.run_key, store.answers)
    log.info("Merged %d answers, %d of them from earlier runs", answers, prepared["reused"])


def score(prepared: Json) -> None:
    """Judge every answer; one benchmark's failure leaves the others' scores standing.

    Raises:
        UserError: no benchmark could be scored.
    """
    store = store_of(RunPlan.from_dict(prepared["plan"]))
    card = score_answers(
        read_table(store.requests),
        table_to_problems(read_table(store.problems)),
        store.answers,
    )
    keep(store, card)


def keep(store: RunStore, card: ScoreCard) -> None:
    """Write a run's scores into its store.

    Raises:
        UserError: no benchmark could be scored.
    """
    for sentence in card.failures.values():
        log.error("%s", sentence)
    if not headline(card.metrics):
        raise UserError(" ".join(card.failures.values()) or "There was nothing to score.")
    write_table(store.verdicts, card.verdicts)
    write_json(store.scorecard, card.to_dict())
    for metric in headline(card.metrics):
        log.info("%s: accuracy %.3f, n=%d", metric.benchmark, metric.value, metric.n)


def headline(metrics: Sequence[MetricRecord]) -> list[MetricRecord]:
    """Choose each benchmark's accuracy over all its problems."""
    return [one for one in metrics if one.metric == "accuracy" and not one.subset]
