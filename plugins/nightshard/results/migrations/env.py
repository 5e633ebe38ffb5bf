"""Alembic's entry: runs the migrations on the connection that the caller gives.

``nightshard.results.database.upgrade`` passes one with its transaction and lock. A developer who
drafts a migration with the ``alembic`` command gets the database of the settings.
"""

import os

import sqlalchemy as sa
from alembic import context

from nightshard.core.settings import Settings
from nightshard.results.database import make_migration_engine, write_transaction
from nightshard.results.tables import Base


def _migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_given = context.config.attributes.get("connection")
if _given is not None:
    _migrate(_given)
else:
    _engine = make_migration_engine(Settings.from_env(os.environ).database_url)
    with write_transaction(_engine) as _connection:
        _migrate(_connection)
