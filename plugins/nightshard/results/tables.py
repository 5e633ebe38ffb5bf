"""The results database: models, runs, their shards and attempts, scores, and what they rest on."""

import datetime
import uuid
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name: SQLite can drop or alter only what a migration can name."""


def utc_now() -> datetime.datetime:
    """Return the present time, aware and in UTC."""
    return datetime.datetime.now(datetime.UTC)


class UtcDateTime(TypeDecorator[datetime.datetime]):
    """An instant: aware on both sides, stored and given back in UTC.

    SQLite has no time zone, so there the column holds naive UTC; PostgreSQL holds ``timestamptz``.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """Convert to UTC.

        Raises:
            ValueError: the time has no zone, so nobody knows which instant it means.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone.")
        value = value.astimezone(datetime.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """Give back an aware time in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=datetime.UTC)
        return value.astimezone(datetime.UTC)


class LogText(TypeDecorator[str]):
    r"""Text that may come from a log, so that it may hold what a database refuses.

    PostgreSQL takes no NUL and no encoding takes a lone surrogate; both become U+FFFD, since a
    strange byte in a failure's message is no reason to lose the record of a run.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL and lone surrogates."""
        return None if value is None else storable_text(value)


def storable_text(value: str) -> str:
    """Replace NUL and lone surrogates by U+FFFD."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if char == "\0" or "\ud800" <= char <= "\udfff" else char
        for char in value
    )


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy's own declaration)
        str: Text(),
        float: Double(),
        datetime.datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
    }


def _new_id() -> str:
    return str(uuid.uuid4())


_ROW_ID = BigInteger().with_variant(Integer, "sqlite")


class Model(Base):
    """A checkpoint: one name at one revision.

    ``family`` is what the checkpoints of one training share.
    """

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("name", "revision"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=_new_id)
    name: Mapped[str]
    revision: Mapped[str]
    path: Mapped[str]
    base_model: Mapped[str | None]
    family: Mapped[str | None]
    step: Mapped[int | None] = mapped_column(BigInteger)
    weights_bytes: Mapped[int | None] = mapped_column(BigInteger)
    training_metadata: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)


class Run(Base):
    """One evaluation of one model.

    ``params`` is what the user asked for, word for word; ``fingerprint_content`` is what
    ``fingerprint`` hashes; ``reused`` counts the requests that earlier runs had already answered;
    ``gate`` is what a gate said of it.
    """

    __tablename__ = "runs"
    __table_args__ = (UniqueConstraint("run_key"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=_new_id)
    run_key: Mapped[str]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    fingerprint: Mapped[str] = mapped_column(index=True)
    fingerprint_content: Mapped[dict[str, Any] | None]
    cluster: Mapped[str]
    status: Mapped[str]
    num_shards: Mapped[int]
    requests: Mapped[int]
    reused: Mapped[int]
    params: Mapped[dict[str, Any] | None]
    spec: Mapped[dict[str, Any] | None]
    dag_id: Mapped[str | None]
    dag_run_id: Mapped[str | None]
    answers_url: Mapped[str | None]
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]
    wall_seconds: Mapped[float | None]
    gate: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)

    model: Mapped[Model] = relationship()
    shards: Mapped[list["Shard"]] = relationship(order_by="(Shard.rank, Shard.attempt)")
    attempts: Mapped[list["ShardAttempt"]] = relationship(
        order_by="(ShardAttempt.rank, ShardAttempt.attempt)"
    )
    metrics: Mapped[list["Metric"]] = relationship(order_by="Metric.id")


class Shard(Base):
    """One attempt at one shard that gave all its answers, as the shard's manifest tells of it."""

    __tablename__ = "shards"
    __table_args__ = (UniqueConstraint("run_id", "rank", "attempt"),)

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    rank: Mapped[int]
    attempt: Mapped[int]
    state: Mapped[str]
    cause: Mapped[str | None] = mapped_column(LogText)
    job_id: Mapped[str | None]
    array_job_id: Mapped[str | None]
    node: Mapped[str | None]
    gpu: Mapped[str | None]
    rows: Mapped[int | None]
    errors: Mapped[int | None]
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    import_s: Mapped[float | None]
    load_s: Mapped[float | None]
    generate_s: Mapped[float | None]
    total_s: Mapped[float | None]
    gpu_seconds: Mapped[float | None]
    energy_j: Mapped[float | None]
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]


class ShardAttempt(Base):
    """How one attempt at one shard ended, well or not, and what was done next."""

    __tablename__ = "shard_attempts"
    __table_args__ = (UniqueConstraint("run_id", "rank", "attempt"),)

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    rank: Mapped[int]
    attempt: Mapped[int]
    state: Mapped[str]
    job_id: Mapped[str]
    exit_code: Mapped[int | None]
    node: Mapped[str | None]
    elapsed_s: Mapped[int | None] = mapped_column(BigInteger)
    gpus: Mapped[int]
    gpu_seconds: Mapped[int | None] = mapped_column(BigInteger)
    done: Mapped[int]
    message: Mapped[str] = mapped_column(LogText)
    decision: Mapped[str] = mapped_column(LogText)
    ended_at: Mapped[datetime.datetime]


class Metric(Base):
    """One score.

    ``subset`` is the empty string for the whole benchmark: a NULL would equal no other NULL, and
    the unique key would then let doubles in.
    """

    __tablename__ = "metrics"
    __table_args__ = (UniqueConstraint("run_id", "benchmark", "subset", "metric", "judge_version"),)

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    benchmark: Mapped[str] = mapped_column(index=True)
    benchmark_version: Mapped[str]
    subset: Mapped[str] = mapped_column(default="", server_default="")
    metric: Mapped[str]
    value: Mapped[float]
    stderr: Mapped[float | None]
    ci_low: Mapped[float | None]
    ci_high: Mapped[float | None]
    n: Mapped[int]
    coverage: Mapped[float]
    partial: Mapped[bool]
    judge_version: Mapped[str]


class QuestionSet(Base):
    """One version of a benchmark's questions and prompts.

    ``problems`` is the most that a run asked; one with a limit asks fewer.
    """

    __tablename__ = "question_sets"
    __table_args__ = (UniqueConstraint("benchmark", "version"),)

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    benchmark: Mapped[str]
    version: Mapped[str]
    problems: Mapped[int]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)


class Fingerprint(Base):
    """What everything beyond a request that can change an answer was, by its hash."""

    __tablename__ = "fingerprints"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)


class Claim(Base):
    """A run that generates a benchmark's answers under a fingerprint now."""

    __tablename__ = "claims"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    benchmark: Mapped[str] = mapped_column(primary_key=True)
    run_key: Mapped[str] = mapped_column(index=True)
    deployment: Mapped[str]
    dag_id: Mapped[str]
    dag_run_id: Mapped[str]
    taken_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)


class RunComparison(Base):
    """How a run differs from another one on a benchmark, paired by problem."""

    __tablename__ = "comparisons"
    __table_args__ = (UniqueConstraint("first_run_id", "second_run_id", "benchmark"),)

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    first_run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    second_run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    benchmark: Mapped[str]
    first: Mapped[float]
    second: Mapped[float]
    value: Mapped[float]
    stderr: Mapped[float | None]
    ci_low: Mapped[float]
    ci_high: Mapped[float]
    p_value: Mapped[float]
    p_adjusted: Mapped[float | None]
    test: Mapped[str]
    problems: Mapped[int]
    better: Mapped[int]
    worse: Mapped[int]
    detectable: Mapped[float | None]
    verdict: Mapped[str]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
