"""Writing a run into the results database, so that writing it twice changes nothing."""

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nightshard.core.errors import UserError
from nightshard.results.database import write_transaction
from nightshard.results.gate import Ruling
from nightshard.results.records import AttemptRecord, MetricRecord, RunRecord, ShardRecord
from nightshard.results.tables import (
    Base,
    Fingerprint,
    Metric,
    Model,
    QuestionSet,
    Run,
    RunComparison,
    Shard,
    ShardAttempt,
    utc_now,
)

_NEVER_UPDATED = frozenset({"id", "created_at"})


def record_run(engine: sa.Engine, run: RunRecord) -> None:
    """Write a run, its model, its shards, their attempts and its metrics in one transaction.

    Rows are known by what they are of (model and revision; run key; rank and attempt; benchmark,
    subset, metric and judge version), so a second call updates the rows that stand and adds those
    that are new. A None means "not known" and never wipes out what an earlier call knew. Rows
    that a later call leaves out stay.

    Any number of processes may write the same run at once: every writer takes the model's row
    first, the run's next, and the others in a fixed order, so that none waits for another in a
    circle.

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
        content = run.fingerprint_content
        basis = {
            "fingerprint": run.fingerprint,
            "content": dict(content) if content is not None else None,
            "created_at": utc_now(),
        }
        _upsert(connection, Fingerprint, ("fingerprint",), [basis])
        _upsert(connection, QuestionSet, ("benchmark", "version"), _question_sets(metrics))


def record_ruling(engine: sa.Engine, run_key: str, ruling: Ruling) -> None:
    """Write what a gate said of a run, and the comparisons that it rests on.

    The scores stay as they are; a second call replaces what an earlier one said.

    Raises:
        UserError: no such run.
    """
    keys = [run_key, *([ruling.baseline] if ruling.baseline else [])]
    with write_transaction(engine) as connection:
        found = connection.execute(sa.select(Run.run_key, Run.id).where(Run.run_key.in_(keys)))
        ids = {row.run_key: row.id for row in found}
        if missing := [key for key in keys if key not in ids]:
            raise UserError(f"There is no run {missing[0]!r} in the results database.")
        connection.execute(sa.update(Run).where(Run.id == ids[run_key]).values(gate=ruling.said()))
        if ruling.baseline is None:
            return
        ends = {"first_run_id": ids[ruling.baseline], "second_run_id": ids[run_key]}
        rows = [
            {
                **dataclasses.asdict(one.difference),
                **ends,
                "benchmark": one.benchmark,
                "p_adjusted": one.adjusted,
                "verdict": one.verdict,
                "created_at": utc_now(),
            }
            for one in sorted(ruling.comparisons, key=lambda one: one.benchmark)
            if one.difference is not None
        ]
        _upsert(connection, RunComparison, ("first_run_id", "second_run_id", "benchmark"), rows)


def _question_sets(metrics: Iterable[MetricRecord]) -> list[dict[str, Any]]:
    asked: dict[tuple[str, str], int] = {}
    for one in metrics:
        if not one.subset:
            key = (one.benchmark, one.benchmark_version)
            asked[key] = max(one.n, asked.get(key, 0))
    return [
        {"benchmark": name, "version": version, "problems": n, "created_at": utc_now()}
        for (name, version), n in sorted(asked.items())
    ]


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
    entity: type[Base],
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
        set_={column.name: _kept(dialect, entity, new[column.name], column) for column in columns},
    )
    if "id" in rows[0]:
        return str(connection.execute(upsert.returning(table.c.id), rows[0]).scalar_one())
    connection.execute(upsert, list(rows))
    return None


def _kept(
    dialect: ModuleType, entity: type[Base], new: Any, column: sa.Column[Any]
) -> sa.ColumnElement[Any]:
    """Say which of a new and a standing value stays."""
    if entity is QuestionSet:  # a run with a limit asks fewer problems than there are
        greatest = sa.func.greatest if dialect is postgresql else sa.func.max
        return greatest(new, column)
    return sa.func.coalesce(new, column) if column.nullable else new
