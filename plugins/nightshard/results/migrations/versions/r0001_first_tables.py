"""Models, runs, shard attempts and metrics."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "models",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("base_model", sa.Text),
        sa.Column("step", sa.BigInteger),
        sa.Column("training_metadata", sa.JSON),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", "revision", name="uq_models_name_revision"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("run_key", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("fingerprint_content", sa.JSON),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("num_shards", sa.Integer, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("reused", sa.Integer, nullable=False),
        sa.Column("params", sa.JSON),
        sa.Column("spec", sa.JSON),
        sa.Column("dag_id", sa.Text),
        sa.Column("dag_run_id", sa.Text),
        sa.Column("answers_url", sa.Text),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.Column("wall_seconds", sa.Double),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("run_key", name="uq_runs_run_key"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_runs_model_id_models"),
    )
    op.create_index("ix_runs_model_id", "runs", ["model_id"])
    op.create_index("ix_runs_fingerprint", "runs", ["fingerprint"])
    op.create_table(
        "shards",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("job_id", sa.Text),
        sa.Column("array_job_id", sa.Text),
        sa.Column("node", sa.Text),
        sa.Column("gpu", sa.Text),
        sa.Column("rows", sa.Integer),
        sa.Column("errors", sa.Integer),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("import_s", sa.Double),
        sa.Column("load_s", sa.Double),
        sa.Column("generate_s", sa.Double),
        sa.Column("total_s", sa.Double),
        sa.Column("gpu_seconds", sa.Double),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_shards"),
        sa.UniqueConstraint("run_id", "rank", "attempt", name="uq_shards_run_id_rank_attempt"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_shards_run_id_runs", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "metrics",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("benchmark", sa.Text, nullable=False),
        sa.Column("benchmark_version", sa.Text, nullable=False),
        sa.Column("subset", sa.Text, server_default="", nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("stderr", sa.Double),
        sa.Column("ci_low", sa.Double),
        sa.Column("ci_high", sa.Double),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("coverage", sa.Double, nullable=False),
        sa.Column("partial", sa.Boolean, nullable=False),
        sa.Column("judge_version", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metrics"),
        sa.UniqueConstraint(
            "run_id",
            "benchmark",
            "subset",
            "metric",
            "judge_version",
            name="uq_metrics_run_id_benchmark_subset_metric_judge_version",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_metrics_run_id_runs", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_metrics_benchmark", "metrics", ["benchmark"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("metrics", "shards", "runs", "models"):
        op.drop_table(table)
