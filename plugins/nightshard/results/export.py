"""All scores as one flat table, for pandas, a spreadsheet or a plot."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import sqlalchemy as sa

from nightshard.core.errors import UserError
from nightshard.results.tables import Metric, Model, Run, ShardAttempt

_FIELDS: list[tuple[str, pa.DataType]] = [
    *((name, pa.string()) for name in ("model", "revision", "base_model")),
    ("step", pa.int64()),
    *((name, pa.string()) for name in ("benchmark", "benchmark_version", "subset", "metric")),
    *((name, pa.float64()) for name in ("value", "stderr", "ci_low", "ci_high")),
    ("n", pa.int64()),
    ("coverage", pa.float64()),
    ("partial", pa.bool_()),
    *((name, pa.string()) for name in ("judge_version", "run_key", "cluster", "status")),
    *((name, pa.int64()) for name in ("num_shards", "requests", "reused")),
    *((name, pa.timestamp("us", tz="UTC")) for name in ("started_at", "finished_at")),
    ("wall_seconds", pa.float64()),
    ("gpu_seconds", pa.int64()),
    *((name, pa.string()) for name in ("fingerprint", "answers_url")),
]
SCHEMA = pa.schema(_FIELDS)
"""One row a score; ``gpu_seconds`` is the sum over the run's attempts, as far as it is known."""


def scores_table(engine: sa.Engine) -> pa.Table:
    """Return every score that is recorded, in the order of recording."""
    spent = (
        sa.select(
            ShardAttempt.run_id,
            sa.cast(sa.func.sum(ShardAttempt.gpu_seconds), sa.BigInteger).label("gpu_seconds"),
        )
        .group_by(ShardAttempt.run_id)
        .subquery()
    )
    places = {"model": Model.name, "gpu_seconds": spent.c.gpu_seconds}
    columns = [
        (places[name] if name in places else _column(name)).label(name) for name in SCHEMA.names
    ]
    statement = (
        sa.select(*columns)
        .select_from(Metric)
        .join(Run, Metric.run_id == Run.id)
        .join(Model, Run.model_id == Model.id)
        .outerjoin(spent, spent.c.run_id == Run.id)
        .order_by(Metric.id)
    )
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(statement).mappings()]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def export_scores(engine: sa.Engine, path: Path) -> int:
    """Write every score into a ``.parquet`` or ``.csv`` file.

    Returns:
        Number of scores.

    Raises:
        UserError: another kind of file, or it cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in (".parquet", ".csv"):
        raise UserError(f"{path} is neither .parquet nor .csv; give it one of these endings.")
    table = scores_table(engine)
    try:
        if ending == ".csv":
            pa_csv.write_csv(table, path)
        else:
            pq.write_table(table, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    return int(table.num_rows)


def _column(name: str) -> sa.ColumnElement[object]:
    """Find a column by its name: a score's own first, then the run's, then the model's."""
    for owner in (Metric, Run, Model):
        if name in owner.__table__.columns:
            return getattr(owner, name)  # type: ignore[no-any-return]
    raise KeyError(name)
