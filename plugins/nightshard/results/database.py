"""Opening, checking and upgrading the results database."""

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from nightshard.core.errors import UserError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 60
UPGRADE_LOCK = 0x6E73_6462
"""Key of PostgreSQL's advisory lock under which one process at a time upgrades."""

_BEGIN = "nightshard_sqlite_begin"
_FORMS = "write it as sqlite:////folder/file.db or postgresql://user@host/name"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Which migration the database stands at, and which one this version of Nightshard needs.

    Attributes:
        current: revision of the database, None where it has no tables yet.
        head: revision that the code needs.
    """

    current: str | None
    head: str

    @property
    def is_head(self) -> bool:
        """Whether nothing has to be upgraded."""
        return self.current == self.head


def open_database(url: str) -> sa.Engine:
    """Open the results database, and create or upgrade its tables where that is needed.

    SQLite uses a write-ahead log, which needs a local disk: no network file system.

    Args:
        url: a SQLAlchemy URL of a SQLite file or a PostgreSQL database.

    Raises:
        UserError: the URL is wrong, the database cannot be reached, or a newer Nightshard made it.
    """
    engine = make_engine(url)
    with _explained(engine.url):
        if not _state(engine).is_head:
            upgrade(url)
    return engine


def check(url: str) -> SchemaState:
    """Say whether the database is up to date, without changing or creating anything.

    Raises:
        UserError: as :func:`open_database`.
    """
    parsed = _parse(url)
    if _sqlite_file(parsed) is not None and not Path(str(parsed.database)).exists():
        return SchemaState(None, _head())
    engine = _engine(parsed)
    try:
        with _explained(parsed):
            return _state(engine)
    finally:
        engine.dispose()


def require_head(url: str) -> SchemaState:
    """Make sure that the database is up to date, without changing anything.

    Raises:
        UserError: it is not, or see :func:`check`.
    """
    state = check(url)
    if not state.is_head:
        stands = f"stands at revision {state.current}" if state.current else "has no tables yet"
        raise UserError(
            f"The results database {stands} and this version needs {state.head}: run "
            "`nightshard db upgrade`."
        )
    return state


def upgrade(url: str) -> SchemaState:
    """Bring the database to the newest migration; harmless when it is there already.

    Processes that call this at the same time wait for each other: on SQLite by a lock file beside
    the database, on PostgreSQL by an advisory lock. The whole upgrade is one transaction.

    Raises:
        UserError: as :func:`open_database`.
    """
    parsed = _parse(url)
    with _explained(parsed), _upgrade_lock(parsed):
        engine = make_migration_engine(url)
        try:
            with write_transaction(engine) as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
                _known(MigrationContext.configure(connection).get_current_revision())
                config = _alembic_config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            return _state(engine)
        finally:
            engine.dispose()


def make_engine(url: str) -> sa.Engine:
    """Build the engine for a URL without touching tables; a SQLite file's folder is created.

    Raises:
        UserError: the URL cannot be used; the sentence never holds a password.
    """
    return _engine(_parse(url))


def make_migration_engine(url: str) -> sa.Engine:
    """Build an engine for migrations: on SQLite, foreign keys are not enforced.

    A batch migration drops and renames tables, which would otherwise cascade to other tables' rows.

    Raises:
        UserError: as :func:`make_engine`.
    """
    return _engine(_parse(url), migrating=True)


@contextlib.contextmanager
def write_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open one transaction for writing.

    On SQLite it takes the write lock at its start. A transaction that reads first and writes later
    would fail at once, without waiting, when another process wrote in between.
    """
    with engine.connect() as plain:
        connection = plain.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        with connection.begin():
            yield connection


def _parse(url: str) -> sa.URL:
    # A URL that cannot be parsed is not repeated: it may hold a password.
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise UserError(f"The database URL (NIGHTSHARD_DB_URL) is not a URL: {_FORMS}.") from None
    if parsed.drivername == "postgres":
        parsed = parsed.set(drivername="postgresql")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(
            f"The database URL names {parsed.get_backend_name()!r}, which Nightshard cannot use: "
            f"{_FORMS}."
        )
    if parsed.get_backend_name() == "sqlite" and _sqlite_file(parsed) is None:
        raise UserError(
            "The database URL names no plain file, and a database in memory would forget every "
            f"score: {_FORMS}."
        )
    return parsed


def _sqlite_file(url: sa.URL) -> Path | None:
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name.startswith((":memory:", "file:")):
        return None
    return Path(name)


def _engine(url: sa.URL, *, migrating: bool = False) -> sa.Engine:
    try:
        if url.get_dialect().is_async:
            raise UserError(
                f"The database driver {url.drivername!r} is asynchronous and Nightshard's is not: "
                f"leave the driver out ({url.get_backend_name()}://…)."
            )
        file = _sqlite_file(url)
        if file is None:
            return sa.create_engine(url, pool_pre_ping=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
    except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
        raise UserError(
            f"The driver of {url.drivername!r} is not installed ({error}): install "
            "nightshard[postgres], or leave the driver out of the database URL."
        ) from None
    except OSError as error:
        raise UserError(
            f"The folder of the database {file} cannot be created ({error.strerror}): "
            "choose another place with NIGHTSHARD_DB_URL."
        ) from None
    _teach_sqlite(engine, migrating=migrating)
    return engine


def _teach_sqlite(engine: sa.Engine, *, migrating: bool) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # With the driver's own transactions off, BEGIN is ours to choose, and DDL is inside it.
        connection.isolation_level = None
        if migrating:
            # The switch to WAL is kept in the file, and SQLite does not wait for its lock, so it
            # happens once, under the upgrade's own lock.
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute("PRAGMA journal_mode=WAL")
        else:
            connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


@contextlib.contextmanager
def _upgrade_lock(url: sa.URL) -> Iterator[None]:
    file = _sqlite_file(url)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{file}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _explained(url: sa.URL) -> Iterator[None]:
    shown = url.render_as_string(hide_password=True)
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The results database {shown} cannot be used ({error.strerror or error}): check "
            "NIGHTSHARD_DB_URL."
        ) from error
    except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
        reason = " ".join(str(error.orig).split())
        raise UserError(
            f"The results database {shown} cannot be used ({reason}): check that it is there, that "
            "you may write to it and that NIGHTSHARD_DB_URL names it."
        ) from error


def _alembic_config() -> Config:
    config = Config()
    # Alembic interpolates percent signs in its options.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic_config())


def _head() -> str:
    return str(_scripts().get_current_head())


def _state(engine: sa.Engine) -> SchemaState:
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return SchemaState(_known(current), _head())


def _known(revision: str | None) -> str | None:
    if revision is not None and revision not in {script.revision for script in _walk()}:
        raise UserError(
            f"The results database stands at revision {revision!r}, which this version does not "
            "know: a newer Nightshard made it, so update Nightshard or use another database."
        )
    return revision


def _walk() -> list[Any]:
    return list(_scripts().walk_revisions())
