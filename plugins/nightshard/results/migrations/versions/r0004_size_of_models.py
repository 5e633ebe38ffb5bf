"""The size of a model's weights, by which like models are found."""

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision = "r0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is not known of models that are there."""
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("weights_bytes", sa.BigInteger))


def downgrade() -> None:
    """Drop it."""
    with op.batch_alter_table("models") as models:
        models.drop_column("weights_bytes")
