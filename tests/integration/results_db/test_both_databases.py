"""The results database on real servers: the same behaviour on SQLite and on PostgreSQL."""

import datetime
import multiprocessing
from multiprocessing.synchronize import Barrier

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from nightshard.core.comparison import compare
from nightshard.core.errors import UserError
from nightshard.results import database, read
from nightshard.results.compare import Comparison
from nightshard.results.export import scores_table
from nightshard.results.gate import Ruling
from nightshard.results.records import (
    AttemptRecord,
    MetricRecord,
    ModelRecord,
    RunRecord,
    ShardKey,
    ShardRecord,
)
from nightshard.results.tables import Base, Fingerprint, QuestionSet, RunComparison
from nightshard.results.write import record_ruling, record_run

pytestmark = pytest.mark.integration

WRITERS = 20
NOON = datetime.datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=datetime.UTC)
SHARDS = 8


def make_run(number: int, **changes) -> RunRecord:
    """Runs of two checkpoints, with shards and metrics in an order of their own."""
    fields = {
        "run_key": f"run-{number}",
        "model": ModelRecord(
            name=f"org/model-{number % 2}",
            revision="abc",
            path="/models/m",
            base_model="org/base",
            step=2**40,
            training_metadata={"lr": 1e-5, "odd": "\0 and \ud83d", "none": None},
        ),
        "fingerprint": "f" * 32,
        "fingerprint_content": {"dtype": "bfloat16"},
        "cluster": "local",
        "status": "scored",
        "num_shards": SHARDS,
        "requests": 60,
        "reused": 3,
        "params": {"tasks": ["Starter"], "system_prompt": "Ünïcode ❤ 'quoted' \n"},
        "spec": {"contract_version": 2, "engine": {"options": {}}},
        "dag_id": "evaluate",
        "dag_run_id": "manual__1",
        "answers_url": "memory://answers.parquet",
        "started_at": NOON,
        "finished_at": NOON + datetime.timedelta(minutes=number),
        "wall_seconds": 61.5,
        "shards": tuple(
            ShardRecord(
                rank=rank,
                attempt=1,
                state="COMPLETED",
                job_id=f"{number}0{rank}",
                array_job_id=str(number),
                node=f"n{rank}",
                rows=8,
                output_tokens=2**33,
                generate_s=0.1,
                started_at=NOON,
            )
            for rank in range(SHARDS)
        ),
        "attempts": tuple(
            AttemptRecord(
                rank=rank,
                attempt=attempt,
                state=state,
                job_id=f"{number}_{rank}",
                node=f"n{rank}",
                elapsed_s=2**31 if attempt == 1 else None,
                gpus=8,
                done=attempt * 4,
                message="Node n1 failed: ünreachable.",
                decision="again without n1" if attempt == 1 else "done",
                ended_at=NOON,
            )
            for rank in range(SHARDS)
            for attempt, state in ((1, "node_failure"), (2, "ended_well"))
        ),
        "metrics": tuple(
            MetricRecord(
                benchmark=benchmark,
                benchmark_version="1",
                metric="accuracy",
                subset=subset,
                value=0.1 + 0.2,
                stderr=0.01,
                ci_low=0.2,
                ci_high=0.4,
                n=60,
                coverage=0.95,
                partial=True,
                judge_version="1",
            )
            for benchmark in ("Starter", "AIME24")
            for subset in ("", "hard")
        ),
    }
    return RunRecord(**(fields | changes))


def write_runs(url: str, writer: int, barrier: Barrier) -> None:
    engine = database.open_database(url)
    barrier.wait(120)
    # Every writer takes the runs in another order, so that they meet in every combination.
    for number in range(4):
        record_run(engine, make_run((number + writer) % 4))
    engine.dispose()


def open_only(url: str, _writer: int, barrier: Barrier) -> None:
    barrier.wait(120)
    database.open_database(url).dispose()


def in_processes(target, url: str, count: int) -> list[int | None]:
    # A fork server imports once what spawned children would each import for two seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "nightshard.results.read", "nightshard.results.write"]
    )
    barrier = context.Barrier(count)
    children = [
        context.Process(target=target, args=(url, number, barrier)) for number in range(count)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(180)
    return [child.exitcode for child in children]


def contents(engine: sa.Engine) -> dict[str, list]:
    with engine.connect() as connection:
        return {
            table.name: connection.execute(sa.select(table).order_by(*table.primary_key)).all()
            for table in Base.metadata.sorted_tables
        }


def test_twenty_writers_of_the_same_runs_leave_one_row_each(database_url):
    assert in_processes(write_runs, database_url, WRITERS) == [0] * WRITERS
    engine = database.open_database(database_url)
    assert {name: len(rows) for name, rows in contents(engine).items()} == {
        "models": 2,
        "runs": 4,
        "shards": 4 * SHARDS,
        "shard_attempts": 8 * SHARDS,
        "metrics": 16,
        "fingerprints": 1,
        "question_sets": 2,
        "comparisons": 0,
        "claims": 0,
    }
    assert [read.get_run(engine, f"run-{number}") for number in range(4)] == [
        make_run(number) for number in range(4)
    ]


def test_processes_that_open_an_empty_database_at_once_all_succeed(database_url):
    assert in_processes(open_only, database_url, 6) == [0] * 6
    assert database.check(database_url).is_head


def test_an_empty_database_is_brought_to_head_and_a_second_upgrade_keeps_the_data(database_url):
    assert database.check(database_url).current is None
    assert database.upgrade(database_url).is_head
    engine = database.open_database(database_url)
    record_run(engine, make_run(1))
    before = contents(engine)
    assert database.upgrade(database_url).is_head
    assert contents(engine) == before


def test_a_database_of_the_first_version_gets_the_attempts_and_keeps_its_runs(
    database_url, monkeypatch
):
    whole = command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, _: whole(config, "r0001"))
        old = database.upgrade(database_url)
    assert (old.current, old.is_head) == ("r0001", False)
    engine = database.make_engine(database_url)
    with engine.begin() as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        assert "shard_attempts" not in tables.tables
        connection.execute(
            tables.tables["models"].insert(),
            {"id": "m", "name": "org/model", "revision": "1", "path": "/m", "created_at": NOON},
        )
        values = dict.fromkeys(("fingerprint", "cluster", "status"), "x")
        numbers = dict.fromkeys(("num_shards", "requests", "reused"), 1)
        connection.execute(
            tables.tables["runs"].insert(),
            {"id": "r", "run_key": "old", "model_id": "m", "created_at": NOON, **values, **numbers},
        )
    assert not database.check(database_url).is_head
    engine = database.open_database(database_url)
    assert database.check(database_url).is_head
    assert read.get_run(engine, "old").attempts == ()
    record_run(engine, make_run(1))
    assert len(read.get_run(engine, "run-1").attempts) == 2 * SHARDS


@pytest.mark.parametrize("revision", ["r0001", "r0002"])
def test_an_upgrade_lists_the_questions_and_fingerprints_that_scores_rest_on(
    database_url, monkeypatch, revision
):
    whole = command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, _: whole(config, revision))
        database.upgrade(database_url)
    engine = database.make_engine(database_url)
    with engine.begin() as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        connection.execute(
            tables.tables["models"].insert(),
            {"id": "m", "name": "org/model", "revision": "1", "path": "/m", "created_at": NOON},
        )
        run = dict.fromkeys(("cluster", "status"), "x") | {"model_id": "m", "created_at": NOON}
        run |= dict.fromkeys(("num_shards", "requests", "reused"), 1)
        for key, print_ in (("a", "f1"), ("b", "f1"), ("c", "f2")):
            connection.execute(
                tables.tables["runs"].insert(),
                {
                    **run,
                    "id": key,
                    "run_key": key,
                    "fingerprint": print_,
                    "fingerprint_content": {"dtype": print_} if key != "a" else None,
                },
            )
            score = {"metric": "accuracy", "value": 0.5, "coverage": 1.0, "partial": False}
            score |= {"benchmark": "MATH500", "benchmark_version": "1", "judge_version": "j"}
            connection.execute(
                tables.tables["metrics"].insert(),
                [
                    {**score, "run_id": key, "subset": "", "n": 20 if key == "a" else 500},
                    {**score, "run_id": key, "subset": "Algebra", "n": 900},
                ],
            )
    engine = database.open_database(database_url)
    with engine.connect() as connection:
        prints = connection.execute(sa.select(Fingerprint.fingerprint, Fingerprint.content)).all()
        sets = connection.execute(
            sa.select(QuestionSet.benchmark, QuestionSet.version, QuestionSet.problems)
        ).all()
    assert sorted(map(tuple, prints)) == [("f1", {"dtype": "f1"}), ("f2", {"dtype": "f2"})]
    assert list(map(tuple, sets)) == [("MATH500", "1", 500)]
    assert read.get_run(engine, "c").fingerprint_content == {"dtype": "f2"}


def test_a_gates_word_and_its_comparisons_are_kept_beside_the_scores(database_url):
    engine = database.open_database(database_url)
    for number in (1, 2):
        record_run(engine, make_run(number))
    before = read.get_run(engine, "run-2").metrics
    difference = compare({"p": [True], "q": [True]}, {"p": [False], "q": [True]})
    ruling = Ruling("worse", "run-1", ("fell",), (Comparison("MATH500", difference, 0.01),))
    for _ in range(2):  # a task that is cleared says it again
        record_ruling(engine, "run-2", ruling)
    run = read.get_run(engine, "run-2")
    assert run.gate == {"verdict": "worse", "baseline": "run-1", "reasons": ["fell"]}
    assert run.metrics == before
    with engine.connect() as connection:
        (row,) = connection.execute(sa.select(RunComparison.__table__)).mappings()
    assert (row["benchmark"], row["value"], row["verdict"]) == ("MATH500", -0.5, "worse")
    record_run(engine, make_run(2))  # which knows nothing of the gate
    assert read.get_run(engine, "run-2").gate == run.gate
    with pytest.raises(UserError, match="no run 'run-9'"):
        record_ruling(engine, "run-9", ruling)


def test_the_migrations_make_exactly_the_tables_of_the_models(database_url):
    engine = database.open_database(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_run_comes_back_as_recorded_and_recording_it_twice_changes_nothing(database_url):
    engine = database.open_database(database_url)
    record_run(engine, make_run(1))
    before = contents(engine)
    record_run(engine, make_run(1))
    assert contents(engine) == before
    stored = read.get_run(engine, "run-1")
    assert stored == make_run(1)
    assert stored.started_at is not None
    assert stored.started_at.utcoffset() == datetime.timedelta(0)


def test_what_a_later_record_does_not_know_stays(database_url):
    engine = database.open_database(database_url)
    record_run(engine, make_run(1))
    record_run(
        engine,
        make_run(
            1, params=None, wall_seconds=None, finished_at=None, shards=(), attempts=(), metrics=()
        ),
    )
    assert read.get_run(engine, "run-1") == make_run(1)


def test_both_databases_give_the_same_answers(postgres_url, tmp_path):
    answers = []
    for url in (postgres_url, f"sqlite:///{tmp_path}/a.db"):
        engine = database.open_database(url)
        for number in (2, 0, 3, 1):
            record_run(engine, make_run(number))
        record_run(engine, make_run(0, finished_at=None, started_at=NOON, run_key="Über_%"))
        answers.append(
            (
                read.leaderboard(engine),
                read.list_results(engine, model="MODEL-1", benchmark="starter", limit=3),
                read.list_runs(engine),
                read.trace(engine, "run-1", [ShardKey("run-0", 2, 1), ShardKey("run-1", 0, 1)]),
                scores_table(engine).to_pylist(),
            )
        )
    assert answers[0] == answers[1]
    assert [row.run_key for row in answers[0][0]] == ["run-2"] * 4 + ["run-3"] * 4


def test_a_cause_with_bytes_that_postgresql_refuses_is_kept(database_url):
    engine = database.open_database(database_url)
    shard = ShardRecord(rank=0, attempt=1, state="FAILED", cause="bad \0 byte \ud800")
    record_run(engine, make_run(1, shards=(shard,)))
    assert read.get_run(engine, "run-1").shards[0].cause == "bad � byte �"


def test_a_failed_migration_leaves_nothing_behind(database_url, monkeypatch):
    def fail(*_args):
        raise RuntimeError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", fail)
        with pytest.raises(RuntimeError, match="cut off"):
            database.upgrade(database_url)
    assert sa.inspect(database.make_engine(database_url)).get_table_names() == []
    assert database.upgrade(database_url).is_head


def test_a_database_that_does_not_exist_gets_one_sentence(postgres_url):
    missing = postgres_url.replace("nightshard@/", "nightshard:secret@/missing-")
    with pytest.raises(UserError, match="does not exist") as caught:
        database.open_database(missing)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
