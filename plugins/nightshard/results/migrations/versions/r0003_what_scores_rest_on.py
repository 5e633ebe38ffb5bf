"""Question sets, fingerprints, comparisons, claims; what a gate said; families; energy."""

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision = "r0002"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, and fill them from the runs and scores that are there."""
    op.create_table(
        "fingerprints",
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("content", sa.JSON),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_fingerprints"),
    )
    op.create_table(
        "question_sets",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("benchmark", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("problems", sa.Integer, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_question_sets"),
        sa.UniqueConstraint("benchmark", "version", name="uq_question_sets_benchmark_version"),
    )
    op.create_table(
        "comparisons",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("first_run_id", sa.Text, nullable=False),
        sa.Column("second_run_id", sa.Text, nullable=False),
        sa.Column("benchmark", sa.Text, nullable=False),
        sa.Column("first", sa.Double, nullable=False),
        sa.Column("second", sa.Double, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("stderr", sa.Double),
        sa.Column("ci_low", sa.Double, nullable=False),
        sa.Column("ci_high", sa.Double, nullable=False),
        sa.Column("p_value", sa.Double, nullable=False),
        sa.Column("p_adjusted", sa.Double),
        sa.Column("test", sa.Text, nullable=False),
        sa.Column("problems", sa.Integer, nullable=False),
        sa.Column("better", sa.Integer, nullable=False),
        sa.Column("worse", sa.Integer, nullable=False),
        sa.Column("detectable", sa.Double),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_comparisons"),
        sa.UniqueConstraint(
            "first_run_id",
            "second_run_id",
            "benchmark",
            name="uq_comparisons_first_run_id_second_run_id_benchmark",
        ),
        *(
            sa.ForeignKeyConstraint(
                [column], ["runs.id"], name=f"fk_comparisons_{column}_runs", ondelete="CASCADE"
            )
            for column in ("first_run_id", "second_run_id")
        ),
    )
    op.create_table(
        "claims",
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in (
                *("fingerprint", "benchmark", "run_key", "deployment", "dag_id", "dag_run_id"),
            )
        ),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "benchmark", name="pk_claims"),
    )
    op.create_index("ix_claims_run_key", "claims", ["run_key"])
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("family", sa.Text))
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("gate", sa.JSON))
    with op.batch_alter_table("shards") as shards:
        shards.add_column(sa.Column("energy_j", sa.Double))
    _fill()


def _fill() -> None:
    runs = sa.table(
        "runs",
        sa.column("fingerprint", sa.Text),
        sa.column("fingerprint_content", sa.JSON),
        sa.column("created_at", INSTANT),
    )
    fingerprints = sa.table(
        "fingerprints",
        sa.column("fingerprint", sa.Text),
        sa.column("content", sa.JSON),
        sa.column("created_at", INSTANT),
    )
    metrics = sa.table(
        "metrics",
        *map(sa.column, ("run_id", "benchmark", "benchmark_version", "subset", "n")),
    )
    owners = sa.table("runs", sa.column("id"), sa.column("created_at", INSTANT))
    bind = op.get_bind()
    known: dict[str, dict[str, object]] = {}
    for row in bind.execute(sa.select(runs).order_by(runs.c.created_at)).mappings():
        first = known.setdefault(
            row["fingerprint"],
            {
                "fingerprint": row["fingerprint"],
                "content": row["fingerprint_content"],
                "created_at": row["created_at"],
            },
        )
        first["content"] = first["content"] or row["fingerprint_content"]
    if known:
        bind.execute(fingerprints.insert(), list(known.values()))
    sets = bind.execute(
        sa.select(
            metrics.c.benchmark,
            metrics.c.benchmark_version.label("version"),
            sa.func.max(metrics.c.n).label("problems"),
            sa.func.min(owners.c.created_at).label("created_at"),
        )
        .select_from(metrics.join(owners, owners.c.id == metrics.c.run_id))
        .where(metrics.c.subset == "")
        .group_by(metrics.c.benchmark, metrics.c.benchmark_version)
    )
    question_sets = sa.table(
        "question_sets",
        *map(sa.column, ("benchmark", "version", "problems")),
        sa.column("created_at", INSTANT),
    )
    rows = [dict(row) for row in sets.mappings()]
    if rows:
        bind.execute(question_sets.insert(), rows)


def downgrade() -> None:
    """Drop what came with it."""
    with op.batch_alter_table("shards") as shards:
        shards.drop_column("energy_j")
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("gate")
    with op.batch_alter_table("models") as models:
        models.drop_column("family")
    for name in ("claims", "comparisons", "question_sets", "fingerprints"):
        op.drop_table(name)
