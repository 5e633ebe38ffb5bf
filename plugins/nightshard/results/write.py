"""Writing a run into the results database, so that writing it twice changes nothing."""

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nightshard.results.database import write_transaction
from nightshard.results.records import AttemptRecord, MetricRecord, RunRecord, ShardRecord
from nightshard.results.tables import Base, Metric, Model, Run, Shard, ShardAttempt, utc_now

_NEVER_UPDATED = frozenset({"id", "created_at"})


def record_run(engine: sa.Engine, run: RunRecord) -> None:
    """Write a run, its model, its shards, their attempts and its metrics in one transaction.

    Rows are known by what they are of (model and revision; run key; rank and attempt; benchmark,
    subset, metric and judge version), so a second call updates the rows that stand and adds those
    that are new. A None means "not known" and never wipes out what an earlier call knew. Rows
    that a later call leaves out stay.

    Any number of processes may write the same run at once: every writer takes the model's row
    first and the run's next, so that none waits for another in a circle.

    Raises:
        ValueError: two shards, attempts or metrics of the run have the same key, or a time has no
            zone.
    """
    shards = sorted(run.shards, key=_shard_key)
    attempts = sorted(run.attempts, key=_shard_key)
    metrics = list(run.metrics)
    _refuse_doubles("shard attempt", map(_shard_key, shards))
    _refuse_doubles("ended attempt", map(_shard_key, attempts))
    _refuse_doubles("metric", map(_metric_key, metrics))
    with write_transaction(engine) as connection:
        model_id = _upsert(connection, Model, ("name", "revision"), [_new(run.model)])
        row = _new(run) | {"model_id": model_id}
        for name in ("model", "shards", "attempts", "metrics"):
            del row[name]
        run_id = _upsert(connection, Run, ("run_key",), [row])
        children = {"run_id": run_id}
        _upsert(
            connection,
            Shard,
            ("run_id", "rank", "attempt"),
            [_fields(shard) | children for shard in shards],
        )
        _upsert(
            connection,
            ShardAttempt,
            ("run_id", "rank", "attempt"),
            [_fields(attempt) | children for attempt in attempts],
        )
        _upsert(
            connection,
            Metric,
            ("run_id", "benchmark", "subset", "metric", "judge_version"),
            [_fields(metric) | children for metric in metrics],
        )


def _shard_key(shard: ShardRecord | AttemptRecord) -> tuple[int, int]:
    return shard.rank, shard.attempt


def _metric_key(metric: MetricRecord) -> tuple[str, str, str, str]:
    return metric.benchmark, metric.subset, metric.metric, metric.judge_version


def _refuse_doubles(kind: str, keys: Iterable[object]) -> None:
    seen: set[object] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"The run holds the {kind} {key} twice.")
        seen.add(key)


def _fields(record: Any) -> dict[str, Any]:
    return {
        field.name: dict(value) if isinstance(value, Mapping) else value
        for field in dataclasses.fields(record)
        for value in [getattr(record, field.name)]
    }


def _new(record: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "created_at": utc_now(), **_fields(record)}


def _upsert(
    connection: sa.Connection,
    entity: type[Model | Run | Shard | ShardAttempt | Metric],
    key: Sequence[str],
    rows: Sequence[dict[str, Any]],
) -> str | None:
    """Insert or update rows by their natural key; return the id of a model or run."""
    if not rows:
        return None
    table = Base.metadata.tables[entity.__tablename__]
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    new = statement.excluded
    columns = [table.c[name] for name in rows[0] if name not in _NEVER_UPDATED and name not in key]
    upsert = statement.on_conflict_do_update(
        index_elements=list(key),
        set_={
            column.name: sa.func.coalesce(new[column.name], column)
            if column.nullable
            else new[column.name]
            for column in columns
        },
    )
    if "id" in rows[0]:
        return str(connection.execute(upsert.returning(table.c.id), rows[0]).scalar_one())
    connection.execute(upsert, list(rows))
    return None
