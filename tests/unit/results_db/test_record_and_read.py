"""What goes into the results database comes out of it, once."""

import dataclasses
import datetime
import json
import uuid

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightshard.core.errors import UserError
from nightshard.results import read
from nightshard.results.database import open_database
from nightshard.results.records import (
    AttemptRecord,
    MetricRecord,
    ModelRecord,
    RunRecord,
    ShardKey,
    ShardRecord,
    gpu_time,
)
from nightshard.results.tables import storable_text
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

MODEL = ModelRecord(name="org/Model-1B", revision="a" * 40, path="/models/m", step=100)
NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


def metric(benchmark="Starter", value=0.5, **changes) -> MetricRecord:
    fields = {
        "benchmark": benchmark,
        "benchmark_version": "1",
        "metric": "accuracy",
        "value": value,
        "n": 60,
        "coverage": 1.0,
        "judge_version": "1",
    }
    return MetricRecord(**(fields | changes))


def run(run_key="r1", *, hours=0, **changes) -> RunRecord:
    fields = {
        "run_key": run_key,
        "model": MODEL,
        "fingerprint": "f" * 32,
        "cluster": "local",
        "status": "scored",
        "num_shards": 2,
        "requests": 60,
        "finished_at": NOON + datetime.timedelta(hours=hours),
        "shards": (shard(0), shard(1)),
        "metrics": (metric(),),
    }
    return RunRecord(**(fields | changes))


def shard(rank, attempt=1, **changes) -> ShardRecord:
    fields = {"rank": rank, "attempt": attempt, "state": "COMPLETED", "job_id": f"4{rank}"}
    return ShardRecord(**(fields | changes))


def attempt(rank, number=1, **changes) -> AttemptRecord:
    fields = {
        "rank": rank,
        "attempt": number,
        "state": "preempted",
        "job_id": f"57_{rank}",
        "elapsed_s": 100,
        "gpus": 2,
        "ended_at": NOON,
    }
    return AttemptRecord(**(fields | changes))


def rows(engine) -> dict[str, list]:
    with engine.connect() as connection:
        return {
            table: connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY id")).all()
            for table in ("models", "runs", "shards", "shard_attempts", "metrics")
        }


@pytest.fixture
def engine(tmp_path):
    return open_database(f"sqlite:///{tmp_path}/a.db")


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory):
    return open_database(f"sqlite:///{tmp_path_factory.mktemp('db')}/a.db")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(), json_values, max_size=3)
plain = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
instants = st.datetimes(
    min_value=datetime.datetime(1990, 1, 1),  # noqa: DTZ001 (the strategy adds the zone)
    timezones=st.timezones(),
).map(lambda value: value.astimezone(datetime.UTC))
amounts = st.none() | st.integers(0, 2**40)
seconds = st.none() | st.floats(0, 1e9)
runs = st.builds(
    RunRecord,
    run_key=st.just(""),
    model=st.builds(
        ModelRecord,
        name=plain,
        revision=st.just(""),
        path=plain,
        base_model=st.none() | plain,
        step=amounts,
        training_metadata=st.none() | objects,
    ),
    fingerprint=plain,
    fingerprint_content=st.none() | objects,
    cluster=plain,
    status=plain,
    num_shards=st.integers(0, 1000),
    requests=st.integers(0, 10**6),
    reused=st.integers(0, 10**6),
    params=st.none() | objects,
    spec=st.none() | objects,
    answers_url=st.none() | plain,
    started_at=st.none() | instants,
    finished_at=st.none() | instants,
    wall_seconds=seconds,
    shards=st.lists(
        st.builds(
            ShardRecord,
            rank=st.integers(0, 5),
            attempt=st.integers(1, 3),
            state=plain,
            cause=st.none() | plain,
            output_tokens=amounts,
            generate_s=seconds,
            started_at=st.none() | instants,
        ),
        unique_by=lambda one: (one.rank, one.attempt),
        max_size=4,
    ).map(lambda found: tuple(sorted(found, key=lambda one: (one.rank, one.attempt)))),
    attempts=st.lists(
        st.builds(
            AttemptRecord,
            rank=st.integers(0, 5),
            attempt=st.integers(1, 3),
            state=plain,
            job_id=plain,
            exit_code=st.none() | st.integers(0, 255),
            node=st.none() | plain,
            elapsed_s=st.none() | st.integers(0, 10**7),
            gpus=st.integers(0, 1000),
            done=st.integers(0, 10**6),
            message=plain,
            decision=plain,
            ended_at=instants,
        ),
        unique_by=lambda one: (one.rank, one.attempt),
        max_size=4,
    ).map(lambda found: tuple(sorted(found, key=lambda one: (one.rank, one.attempt)))),
    metrics=st.lists(
        st.builds(
            MetricRecord,
            benchmark=plain,
            benchmark_version=plain,
            metric=plain,
            value=st.floats(allow_nan=False, allow_infinity=False),
            n=st.integers(0, 10**6),
            coverage=st.floats(0, 1),
            judge_version=plain,
            subset=plain,
            partial=st.booleans(),
        ),
        unique_by=lambda one: (one.benchmark, one.subset, one.metric, one.judge_version),
        max_size=4,
    ).map(tuple),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(record=runs)
def test_a_run_comes_back_as_it_was_recorded(shared_engine, record):
    # Hypothesis repeats its draws, and a repeated key would be an update.
    model = dataclasses.replace(record.model, revision=str(uuid.uuid4()))
    record = dataclasses.replace(record, run_key=str(uuid.uuid4()), model=model)
    record_run(shared_engine, record)
    assert read.get_run(shared_engine, record.run_key) == record


def test_recording_twice_changes_nothing(engine):
    record = run(params={"tasks": ["Starter"]}, spec={"contract_version": 2})
    record_run(engine, record)
    before = rows(engine)
    record_run(engine, record)
    assert rows(engine) == before


def test_a_later_record_adds_what_is_new_and_keeps_what_it_does_not_know(engine):
    record_run(engine, run(wall_seconds=9.5, shards=(shard(0, node="n1"),)))
    record_run(
        engine,
        run(
            status="rescored",
            shards=(shard(0), shard(0, attempt=2)),
            metrics=(metric(value=0.75), metric(value=0.8, judge_version="2")),
        ),
    )
    stored = read.get_run(engine, "r1")
    assert stored.status == "rescored"
    assert stored.wall_seconds == 9.5
    assert [(one.rank, one.attempt, one.node) for one in stored.shards] == [
        (0, 1, "n1"),
        (0, 2, None),
    ]
    assert [(one.judge_version, one.value) for one in stored.metrics] == [("1", 0.75), ("2", 0.8)]


def test_runs_of_the_same_revision_share_one_model_and_another_revision_is_another(engine):
    record_run(engine, run("a"))
    record_run(engine, run("b"))
    record_run(engine, run("c", model=dataclasses.replace(MODEL, revision="b" * 40)))
    assert len(rows(engine)["models"]) == 2


def test_a_run_is_recorded_whole_or_not_at_all(engine):
    with pytest.raises(ValueError, match=r"metric .*Starter.* twice"):
        record_run(engine, run(metrics=(metric(), metric(value=0.1))))
    with pytest.raises(ValueError, match="shard attempt"):
        record_run(engine, run(shards=(shard(0), shard(0))))
    with pytest.raises(ValueError, match="ended attempt"):
        record_run(engine, run(attempts=(attempt(0), attempt(0))))
    with pytest.raises(sa.exc.IntegrityError):
        record_run(engine, run(metrics=(metric(judge_version=None),)))
    assert all(not found for found in rows(engine).values())


def test_strange_bytes_in_a_cause_do_not_lose_the_run(engine):
    record_run(engine, run(shards=(shard(0, cause="killed\0by \ud83d!"),)))
    assert read.get_run(engine, "r1").shards[0].cause == "killed�by �!"
    record_run(engine, run(attempts=(attempt(0, message="bad\0byte"),)))
    assert read.get_run(engine, "r1").attempts[0].message == "bad�byte"


def test_an_attempt_is_added_to_those_that_were_recorded_before(engine):
    record_run(engine, run(attempts=(attempt(1), attempt(0, node="n1"))))
    record_run(engine, run(attempts=(attempt(0), attempt(0, 2, state="ended_well", done=7))))
    stored = [
        (one.rank, one.attempt, one.state, one.node, one.gpu_seconds)
        for one in read.get_run(engine, "r1").attempts
    ]
    assert stored == [
        (0, 1, "preempted", "n1", 200),
        (0, 2, "ended_well", None, 200),
        (1, 1, "preempted", None, 200),
    ]


def test_an_attempt_comes_from_the_json_that_the_run_left():
    value = {
        "rank": 3,
        "attempt": 2,
        "job_id": "57_3",
        "state": "time_limit",
        "exit_code": None,
        "node": "node2",
        "elapsed_s": 61,
        "gpus": 4,
        "done": 12,
        "message": "The time limit was reached.",
        "decision": "again",
        "ended_at": "2026-11-24T12:00:00+00:00",
        "by_try": 1,
    }
    record = AttemptRecord.from_json(value)
    assert (record.state, record.gpu_seconds, record.ended_at) == ("time_limit", 244, NOON)
    assert AttemptRecord.from_json(value | {"elapsed_s": None}).gpu_seconds is None


def test_gpu_time_is_wasted_where_no_answer_was_added():
    spent = gpu_time(
        [
            attempt(1, 1, done=0),
            attempt(0, 3, done=9, elapsed_s=10),
            attempt(0, 1, done=4),
            attempt(0, 2, done=4, elapsed_s=3),
            attempt(1, 2, elapsed_s=None),
        ]
    )
    assert (spent.total, spent.wasted, spent.unknown) == (426, 206, 1)


@given(st.text(st.characters()))
def test_storable_text_encodes_and_changes_nothing_else(text):
    stored = storable_text(text)
    assert "\0" not in stored
    stored.encode()
    assert len(stored) == len(text)
    assert all(new == old for new, old in zip(stored, text, strict=True) if new != "�")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="not a number"):
        metric(value=value)


def test_a_coverage_above_one_is_refused():
    with pytest.raises(ValueError, match="Coverage"):
        metric(coverage=1.01)


def test_the_leaderboard_shows_the_latest_run_of_each_model_and_benchmark(engine):
    other = dataclasses.replace(MODEL, name="org/Other")
    record_run(engine, run("late", hours=2, metrics=(metric(value=0.2),)))
    record_run(engine, run("early", metrics=(metric(value=0.9), metric("AIME24", 0.3))))
    record_run(engine, run("other", model=other, metrics=(metric(value=0.4),)))
    board = [
        (row.model, row.score.benchmark, row.score.value, row.run_key)
        for row in read.leaderboard(engine)
    ]
    assert board == [
        ("org/Model-1B", "AIME24", 0.3, "early"),
        ("org/Model-1B", "Starter", 0.2, "late"),
        ("org/Other", "Starter", 0.4, "other"),
    ]


def test_the_leaderboard_takes_the_judge_that_was_recorded_last(engine):
    record_run(engine, run(metrics=(metric(value=0.5), metric(value=0.1, subset="hard"))))
    record_run(engine, run(metrics=(metric(value=0.6, judge_version="2"),)))
    found = {row.score.subset: row.score.value for row in read.leaderboard(engine)}
    assert found == {"": 0.6, "hard": 0.1}


def test_results_are_listed_newest_first_and_filtered_in_any_case(engine):
    record_run(engine, run("old", metrics=(metric(), metric("AIME24"))))
    record_run(engine, run("new", hours=1))
    record_run(engine, run("100%", hours=-1, model=dataclasses.replace(MODEL, name="odd%name_1")))
    keys = [(row.run_key, row.score.benchmark) for row in read.list_results(engine)]
    assert keys == [
        ("new", "Starter"),
        ("old", "Starter"),
        ("old", "AIME24"),
        ("100%", "Starter"),
    ]
    assert len(read.list_results(engine, limit=2)) == 2
    assert [row.run_key for row in read.list_results(engine, benchmark="aime24")] == ["old"]
    assert {row.run_key for row in read.list_results(engine, model="MODEL-1b")} == {"old", "new"}
    assert [row.run_key for row in read.list_results(engine, model="%name_")] == ["100%"]
    assert [row.run_key for row in read.list_results(engine, run_key="new")] == ["new"]


def test_a_score_row_is_plain_json(engine):
    record_run(engine, run())
    row = json.loads(json.dumps(read.list_results(engine)[0].to_dict()))
    assert row["benchmark"] == "Starter"
    assert row["when"] == "2026-11-24T12:00:00+00:00"


def test_runs_without_scores_are_listed_too(engine):
    record_run(engine, run("failed", hours=1, status="failed", metrics=()))
    record_run(engine, run("good"))
    assert [(one.run_key, one.status) for one in read.list_runs(engine)] == [
        ("failed", "failed"),
        ("good", "scored"),
    ]
    assert read.list_runs(engine, model="nobody") == []
    assert len(read.list_runs(engine, limit=1)) == 1


def test_a_trace_counts_answers_by_attempt_and_finds_those_of_other_runs(engine):
    record_run(engine, run("before", shards=(shard(7, job_id="4711", node="gpu3"),)))
    record_run(engine, run("now", shards=(shard(0), shard(1, attempt=1), shard(1, attempt=2))))
    sources = [
        *[ShardKey("now", 0, 1)] * 3,
        *[ShardKey("now", 1, 2)] * 2,
        ShardKey("before", 7, 1),
        ShardKey("lost", 0, 1),
    ]
    found = read.trace(engine, "now", sources)
    assert [
        (one.run_key, one.shard.rank, one.shard.attempt, one.answers) for one in found.shards
    ] == [
        ("now", 0, 1, 3),
        ("now", 1, 1, 0),
        ("now", 1, 2, 2),
        ("before", 7, 1, 1),
    ]
    assert found.shards[-1].shard.job_id == "4711"
    assert found.shards[-1].shard.node == "gpu3"
    assert found.unknown == (ShardKey("lost", 0, 1),)
    json.dumps(found.to_dict())


def test_a_trace_without_answers_shows_the_runs_own_attempts(engine):
    record_run(engine, run())
    found = read.trace(engine, "r1")
    assert [(one.shard.rank, one.answers) for one in found.shards] == [(0, None), (1, None)]


def test_an_unknown_run_key_gets_a_sentence_with_close_matches(engine):
    with pytest.raises(UserError, match="no runs yet"):
        read.trace(engine, "x")
    record_run(engine, run("20261124-model-a1b2"))
    with pytest.raises(UserError, match="did you mean 20261124-model-a1b2"):
        read.trace(engine, "20261124")
    with pytest.raises(UserError, match="did you mean 20261124-model-a1b2"):
        read.trace(engine, "20261124-model-a1b3")
    with pytest.raises(UserError, match="nightshard results"):
        read.trace(engine, "zzz")


def test_a_shard_record_takes_its_facts_from_the_manifest():
    manifest = {
        "rank": 3,
        "attempt": 2,
        "rows": 10,
        "errors": 1,
        "prompt_tokens": 100,
        "output_tokens": 2000,
        "timings": {"import_s": 1.0, "load_s": 2.0, "generate_s": 30.0, "total_s": 33.5},
        "gpu": "NVIDIA H100",
        "node": "n4",
        "slurm": {
            "job_id": "17",
            "array_job_id": "14",
            "array_task_id": "3",
            "cluster": "local",
        },
        "started_at": "2026-11-24T12:00:00Z",
        "finished_at": "2026-11-24T13:00:33.5+01:00",
    }
    record = ShardRecord.from_manifest(manifest, gpus=4)
    assert (record.rank, record.attempt, record.job_id, record.array_job_id) == (3, 2, "17", "14")
    assert (record.node, record.rows, record.errors, record.output_tokens) == ("n4", 10, 1, 2000)
    assert record.gpu_seconds == 134.0
    assert record.started_at == NOON
    assert record.finished_at == NOON + datetime.timedelta(seconds=33.5)
    assert ShardRecord.from_manifest(manifest | {"gpu": None}).gpu_seconds == 0.0
