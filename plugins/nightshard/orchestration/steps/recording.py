"""Into the database: the task ``record``."""

from dataclasses import asdict
from datetime import UTC, datetime

from nightshard.core.checkpoints import checkpoint_of
from nightshard.core.run_plan import RunPlan
from nightshard.orchestration.steps import Json, current_settings, store_of
from nightshard.orchestration.steps.scoring import headline
from nightshard.results import claims
from nightshard.results.database import open_database
from nightshard.results.records import AttemptRecord, ModelRecord, RunRecord, ShardRecord
from nightshard.results.score import ScoreCard
from nightshard.results.store import RunStore, read_json, write_json
from nightshard.results.write import record_run


def record(prepared: Json, dag_id: str) -> Json:
    """Write run, shards and scores to the database; a second time changes nothing.

    Returns:
        What a person wants to know at the end: ``run_key``, ``requests``, ``reused``,
        ``submitted`` (attempts), ``shards``, ``scores``, ``failures``, ``wall_seconds``.
    """
    run = RunPlan.from_dict(prepared["plan"])
    store = store_of(run)
    world_size = prepared["world_size"]
    card = ScoreCard.from_dict(read_json(store.scorecard))
    finished = _finished_at(store)
    wall = (finished - run.started).total_seconds()
    manifests = [read_json(store.manifest(rank, world_size)) for rank in range(world_size)]
    ended = read_json(store.attempts) if store.attempts.exists() else []
    attempts = tuple(map(AttemptRecord.from_json, ended))
    label = run.model_name
    checkpoint = checkpoint_of(run.params.model, run.params.revision)
    engine = open_database(current_settings().database_url)
    record_run(
        engine,
        RunRecord(
            run_key=run.run_key,
            model=ModelRecord(
                name=label,
                revision=run.model_revision,
                path=run.model.path,
                family=checkpoint.family,
                step=checkpoint.step,
                weights_bytes=run.model.weights_bytes,
            ),
            fingerprint=run.fingerprint,
            fingerprint_content=run.fingerprint_content,
            cluster=run.params.cluster,
            status=card.status,
            num_shards=world_size,
            requests=prepared["requests"],
            reused=prepared["reused"],
            params=run.params.model_dump(mode="json"),
            spec=read_json(store.spec),
            dag_id=dag_id,
            dag_run_id=run.dag_run_id,
            answers_url=str(store.answers),
            started_at=run.started,
            finished_at=finished,
            wall_seconds=wall,
            shards=tuple(ShardRecord.from_manifest(manifest) for manifest in manifests),
            attempts=attempts,
            metrics=tuple(card.metrics),
        ),
    )
    claims.release(engine, run.run_key)
    return {
        "run_key": run.run_key,
        "requests": prepared["requests"],
        "reused": prepared["reused"],
        "submitted": len(attempts),
        "shards": world_size,
        "scores": [
            {**asdict(metric), "accuracy": metric.value, "model": label}
            for metric in headline(card.metrics)
        ],
        "failures": card.failures,
        "wall_seconds": wall,
    }


def _finished_at(store: RunStore) -> datetime:
    """Return when the run was first recorded; a task cleared days later does not lengthen it."""
    file = store.folder / "finished.json"
    if not file.exists():
        write_json(file, {"finished_at": datetime.now(UTC).isoformat()})
    return datetime.fromisoformat(read_json(file)["finished_at"])
