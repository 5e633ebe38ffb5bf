"""How each attempt at a shard ended, and what it cost."""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "shard_attempts",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("node", sa.Text),
        sa.Column("elapsed_s", sa.BigInteger),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("gpu_seconds", sa.BigInteger),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shard_attempts"),
        sa.UniqueConstraint(
            "run_id", "rank", "attempt", name="uq_shard_attempts_run_id_rank_attempt"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_shard_attempts_run_id_runs", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("shard_attempts")
