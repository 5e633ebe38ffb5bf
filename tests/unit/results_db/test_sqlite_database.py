"""The results database on SQLite, which is the default."""

import dataclasses
import datetime
import fcntl
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from nightshard.core.errors import UserError
from nightshard.results import database
from nightshard.results.read import get_run
from nightshard.results.records import ModelRecord, RunRecord
from nightshard.results.tables import Base
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

MODEL = ModelRecord(name="org/model", revision="abc", path="/models/m")


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def minimal_run(run_key: str = "r1") -> RunRecord:
    return RunRecord(
        run_key=run_key,
        model=MODEL,
        fingerprint="f",
        cluster="local",
        status="scored",
        num_shards=2,
        requests=4,
    )


def test_opening_a_database_that_does_not_exist_makes_its_folder_and_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = database.open_database("sqlite:///some/where/scores.db")
    assert set(sa.inspect(engine).get_table_names()) >= {"models", "runs", "shards", "metrics"}
    assert (tmp_path / "some/where/scores.db").is_file()


def test_a_second_upgrade_keeps_the_data(tmp_path):
    url = url_of(tmp_path / "a.db")
    engine = database.open_database(url)
    record_run(engine, minimal_run())
    assert database.upgrade(url).is_head
    assert get_run(database.open_database(url), "r1") == minimal_run()


def test_check_tells_an_empty_place_from_an_upgraded_one_and_creates_nothing(tmp_path):
    url = url_of(tmp_path / "sub" / "a.db")
    before = database.check(url)
    assert before.current is None
    assert not before.is_head
    assert not (tmp_path / "sub").exists()
    database.upgrade(url)
    assert database.check(url).is_head


def test_the_migrations_make_exactly_the_tables_of_the_models(tmp_path):
    engine = database.open_database(url_of(tmp_path / "a.db"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_of_a_newer_version_is_refused_in_one_sentence(tmp_path):
    url = url_of(tmp_path / "a.db")
    with database.open_database(url).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'r9999'"))
    for use in (database.open_database, database.check, database.upgrade):
        with pytest.raises(UserError, match=r"r9999.*newer Nightshard"):
            use(url)


def test_a_failed_migration_leaves_the_database_as_it_was(tmp_path, monkeypatch):
    url = url_of(tmp_path / "a.db")

    def fail(*_args):
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(sqlite3.OperationalError):
        database.upgrade(url)
    monkeypatch.undo()
    with sqlite3.connect(tmp_path / "a.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    assert database.upgrade(url).is_head


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("scores.db", "is not a URL"),
        ("", "is not a URL"),
        ("mysql://u:secret@h/db", "'mysql'"),
        ("oracle://h/db", "'oracle'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("postgresql+nodriver://u:secret@h/db", "not installed"),
        ("postgresql+asyncpg://u:secret@h/db", "asynchronous"),
        ("postgresql://u:secret@127.0.0.1:1/db", "cannot be used"),
    ],
)
def test_a_url_that_cannot_work_gets_one_sentence_without_the_password(url, words):
    with pytest.raises(UserError) as caught:
        database.open_database(url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    with pytest.raises(UserError, match=r"notes\.txt.*not a database"):
        database.open_database(url_of(tmp_path / "notes.txt"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.db"):
        database.open_database(url_of(tmp_path / "file" / "a.db"))


def test_a_time_without_zone_is_refused(tmp_path):
    engine = database.open_database(url_of(tmp_path / "a.db"))
    naive = datetime.datetime(2026, 1, 1)  # noqa: DTZ001 (the fault under test)
    run = RunRecord(
        run_key="r",
        model=MODEL,
        fingerprint="f",
        cluster="c",
        status="s",
        num_shards=1,
        requests=1,
        started_at=naive,
    )
    with pytest.raises(sa.exc.StatementError, match="no time zone"):
        record_run(engine, run)
    with pytest.raises(UserError, match="no runs yet"):
        get_run(engine, "r")


def test_a_reader_is_not_held_up_by_an_open_write(tmp_path):
    engine = database.open_database(url_of(tmp_path / "a.db"))
    record_run(engine, minimal_run())
    with database.write_transaction(engine) as connection:
        connection.execute(sa.text("UPDATE runs SET status = 'half done'"))
        assert get_run(engine, "r1").status == "scored"
    assert get_run(engine, "r1").status == "half done"


def test_writers_that_read_first_take_turns(tmp_path):
    engine = database.open_database(url_of(tmp_path / "a.db"))
    record_run(engine, dataclasses.replace(minimal_run(), requests=0))

    def count_up() -> None:
        for _ in range(20):
            with database.write_transaction(engine) as connection:
                found = connection.execute(sa.text("SELECT requests FROM runs")).scalar_one()
                update = sa.text("UPDATE runs SET requests = :value")
                connection.execute(update, {"value": found + 1})

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(count_up) for _ in range(4)]:
            done.result()
    assert get_run(engine, "r1").requests == 80


def test_an_upgrade_touches_nothing_while_another_process_upgrades(tmp_path, monkeypatch):
    # Two that switch a new file to its write-ahead log at once collide, and SQLite does not wait.
    url = url_of(tmp_path / "a.db")
    asked = threading.Event()
    take_lock = fcntl.flock

    def observed(handle, operation):
        asked.set()
        take_lock(handle, operation)

    with (tmp_path / "a.db.lock").open("w") as other, ThreadPoolExecutor(1) as pool:
        take_lock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", observed)
        upgrading = pool.submit(database.upgrade, url)
        assert asked.wait(30)
        assert not (tmp_path / "a.db").exists()
        take_lock(other, fcntl.LOCK_UN)
        assert upgrading.result(30).is_head
