"""Reading the results database: scores, runs, and where a score comes from."""

import dataclasses
import datetime
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from nightshard.core.errors import UserError
from nightshard.results.records import (
    AttemptRecord,
    MetricRecord,
    ModelRecord,
    RunRecord,
    RunSummary,
    ScoreRow,
    ShardKey,
    ShardRecord,
    Trace,
    TracedShard,
)
from nightshard.results.tables import Metric, Model, Run, Shard

WHEN_RUN = sa.func.coalesce(Run.finished_at, Run.started_at, Run.created_at)
"""End of a run, or its start or first record where the end is not known."""
_SUGGESTIONS_FROM = 2000
_SUGGESTIONS = 3

_T = TypeVar("_T")
_Scores: TypeAlias = sa.Select[Metric, Run, Model, datetime.datetime]


def leaderboard(engine: sa.Engine) -> list[ScoreRow]:
    """Return the scores of the latest run of each model revision on each benchmark.

    Of a metric that several judge versions scored, the judge recorded last counts. Rows are
    ordered by model, newest revision first, then benchmark, subset and metric.
    """
    ranked = (
        sa.select(
            Metric.id,
            sa.func.rank()
            .over(
                partition_by=(Run.model_id, Metric.benchmark),
                order_by=(WHEN_RUN.desc(), Run.run_key.desc()),
            )
            .label("run_rank"),
            sa.func.row_number()
            .over(
                partition_by=(Run.id, Metric.benchmark, Metric.subset, Metric.metric),
                order_by=Metric.id.desc(),
            )
            .label("judge_rank"),
        )
        .join(Run, Metric.run_id == Run.id)
        .subquery()
    )
    statement = (
        _scores()
        .join(ranked, ranked.c.id == Metric.id)
        .where(ranked.c.run_rank == 1, ranked.c.judge_rank == 1)
        .order_by(
            Model.name,
            Model.created_at.desc(),
            Model.revision,
            Metric.benchmark,
            Metric.subset,
            Metric.metric,
        )
    )
    return _score_rows(engine, statement)


def list_results(
    engine: sa.Engine,
    model: str | None = None,
    benchmark: str | None = None,
    limit: int | None = None,
    run_key: str | None = None,
) -> list[ScoreRow]:
    """Return scores, those of the newest run first and inside a run as they were recorded.

    Args:
        engine: from :func:`nightshard.results.database.open_database`.
        model: part of the model's name, in any case.
        benchmark: the benchmark's name, in any case.
        limit: at most so many rows.
        run_key: of this run only.
    """
    statement = _scores().order_by(WHEN_RUN.desc(), Run.run_key, Metric.id)
    if model is not None:
        statement = statement.where(Model.name.icontains(model, autoescape=True))
    if benchmark is not None:
        statement = statement.where(sa.func.lower(Metric.benchmark) == benchmark.lower())
    if run_key is not None:
        statement = statement.where(Run.run_key == run_key)
    if limit is not None:
        statement = statement.limit(limit)
    return _score_rows(engine, statement)


def list_runs(
    engine: sa.Engine, model: str | None = None, limit: int | None = None
) -> list[RunSummary]:
    """Return runs, scored or not, newest first.

    Args:
        engine: from :func:`nightshard.results.database.open_database`.
        model: part of the model's name, in any case.
        limit: at most so many runs.
    """
    statement = (
        sa.select(Run, Model, WHEN_RUN)
        .join(Model, Run.model_id == Model.id)
        .order_by(WHEN_RUN.desc(), Run.run_key)
    )
    if model is not None:
        statement = statement.where(Model.name.icontains(model, autoescape=True))
    if limit is not None:
        statement = statement.limit(limit)
    with Session(engine) as session:
        return [
            RunSummary(
                run_key=run.run_key,
                model=owner.name,
                revision=owner.revision,
                cluster=run.cluster,
                status=run.status,
                num_shards=run.num_shards,
                requests=run.requests,
                reused=run.reused,
                when=when,
                wall_seconds=run.wall_seconds,
            )
            for run, owner, when in session.execute(statement)
        ]


def runs_with(engine: sa.Engine, benchmark: str) -> list[str]:
    """Return the keys of all runs with scores of a benchmark, the oldest first."""
    statement = (
        sa.select(Run.run_key)
        .where(sa.exists().where(Metric.run_id == Run.id, Metric.benchmark == benchmark))
        .order_by(Run.created_at, Run.run_key)
    )
    with Session(engine) as session:
        return list(session.scalars(statement))


def get_run(engine: sa.Engine, run_key: str) -> RunRecord:
    """Return one run with its model, shard attempts and metrics, as it was recorded.

    Raises:
        UserError: no such run; the sentence names those with a similar key.
    """
    with Session(engine) as session:
        statement = sa.select(Run).where(Run.run_key == run_key).options(selectinload("*"))
        run = session.scalars(statement).one_or_none()
        if run is None:
            raise UserError(_unknown_run(session, run_key))
        values = _values(RunRecord, run)
        values["model"] = _record(ModelRecord, run.model)
        values["shards"] = tuple(_record(ShardRecord, shard) for shard in run.shards)
        values["attempts"] = tuple(_record(AttemptRecord, attempt) for attempt in run.attempts)
        values["metrics"] = tuple(_record(MetricRecord, metric) for metric in run.metrics)
        return RunRecord(**values)


def trace(
    engine: sa.Engine,
    run_key: str,
    sources: Iterable[ShardKey] | Mapping[ShardKey, int] | None = None,
) -> Trace:
    """Follow a run's scores down to the Slurm jobs that gave the answers.

    Args:
        engine: from :func:`nightshard.results.database.open_database`.
        run_key: the run.
        sources: which attempt gave each answer, one key an answer, or the count of each key (see
            :func:`nightshard.results.store.read_shard_keys`). Without it the trace holds the
            run's own attempts only, and no counts.

    Raises:
        UserError: no such run; the sentence names those with a similar key.
    """
    run = get_run(engine, run_key)
    if sources is None:
        return Trace(run, tuple(TracedShard(run_key, shard, None) for shard in run.shards))
    counts: Counter[ShardKey] = Counter(sources)
    own = [
        TracedShard(run_key, shard, counts.pop(ShardKey(run_key, shard.rank, shard.attempt), 0))
        for shard in run.shards
    ]
    known = _shards_of(engine, {key.run_key for key in counts})
    others = [
        TracedShard(key.run_key, known[key], counts[key]) for key in sorted(counts) if key in known
    ]
    unknown = tuple(key for key in sorted(counts) if key not in known)
    return Trace(run, (*own, *others), unknown)


def _shards_of(engine: sa.Engine, run_keys: Iterable[str]) -> dict[ShardKey, ShardRecord]:
    found = {}
    with Session(engine) as session:
        for run_key in sorted(run_keys):
            shards = session.scalars(sa.select(Shard).join(Run).where(Run.run_key == run_key))
            for shard in shards:
                key = ShardKey(run_key, shard.rank, shard.attempt)
                found[key] = _record(ShardRecord, shard)
    return found


def _scores() -> _Scores:
    return (
        sa.select(Metric, Run, Model, WHEN_RUN)
        .join(Run, Metric.run_id == Run.id)
        .join(Model, Run.model_id == Model.id)
    )


def _score_rows(engine: sa.Engine, statement: _Scores) -> list[ScoreRow]:
    with Session(engine) as session:
        return [
            ScoreRow(
                model=model.name,
                revision=model.revision,
                step=model.step,
                run_key=run.run_key,
                status=run.status,
                num_shards=run.num_shards,
                when=when,
                score=_record(MetricRecord, metric),
            )
            for metric, run, model, when in session.execute(statement)
        ]


def _values(kind: type[Any], row: Any) -> dict[str, Any]:
    return {
        field.name: getattr(row, field.name) for field in dataclasses.fields(kind) if field.init
    }


def _record(kind: type[_T], row: Any) -> _T:
    return kind(**_values(kind, row))


def _unknown_run(session: Session, run_key: str) -> str:
    keys = list(
        session.scalars(sa.select(Run.run_key).order_by(WHEN_RUN.desc()).limit(_SUGGESTIONS_FROM))
    )
    if not keys:
        return f"There is no run {run_key!r}: the results database holds no runs yet."
    close = [key for key in keys if run_key and key.startswith(run_key)][:_SUGGESTIONS]
    close = close or difflib.get_close_matches(run_key, keys, n=_SUGGESTIONS)
    if close:
        return f"There is no run {run_key!r}: did you mean {' or '.join(close)}?"
    return f"There is no run {run_key!r}: `nightshard results` lists those that exist."
