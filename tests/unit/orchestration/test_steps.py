"""A step that is cleared and taken again changes nothing that stands."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from nightshard.core.errors import UserError
from nightshard.core.fingerprint import ModelDescription
from nightshard.core.run_params import parse_run_params
from nightshard.core.run_plan import RunPlan
from nightshard.orchestration.steps import Json, current_settings
from nightshard.orchestration.steps.preparing import claim, prepare
from nightshard.orchestration.steps.recording import record
from nightshard.results.claims import release
from nightshard.results.database import open_database
from nightshard.results.records import MetricRecord
from nightshard.results.score import ScoreCard
from nightshard.results.store import RunStore, read_table, write_json

pytestmark = pytest.mark.unit

MODEL = ModelDescription("/models/m", "abc", "def", 2048, "echo", "1", "0.1.0", 1)
ENGINE = {"name": "echo", "dtype": "auto", "tensor_parallel": 1, "options": {}}


def plan(num_shards: int | None = 2, limit: int = 5) -> RunPlan:
    asked = {"model": "/models/m", "tasks": ["Starter"], "cluster": "local", "limit": limit}
    return RunPlan(
        run_key="run-1",
        params=parse_run_params({**asked, "num_shards": num_shards, "repeats": 1}),
        model=MODEL,
        engine=ENGINE,
        num_shards=num_shards or 8,
        max_job_minutes=60,
        worker="/work/worker.zip",
        started_at="2026-11-24T01:30:00+00:00",
        dag_run_id="manual",
    )


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with a blank, in which everything has to work as well."""
    folder = tmp_path / "my state"
    folder.mkdir()
    monkeypatch.setenv("NIGHTSHARD_STATE", str(folder))
    for name in ("NIGHTSHARD_STORE", "NIGHTSHARD_DB_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


def prepared(run: RunPlan) -> Json:
    return prepare(run.to_dict())


def test_the_shards_hold_every_request_once(state: Path) -> None:
    found = prepared(plan())
    assert (found["requests"], found["reused"], found["world_size"]) == (5, 0, 2)
    store = RunStore(str(state / "store"), "run-1")
    asked = read_table(store.requests, ["request_id"]).column(0).to_pylist()
    staged = [
        one
        for rank in range(2)
        for one in read_table(store.input(rank, 2), ["request_id"]).column(0).to_pylist()
    ]
    assert sorted(staged) == sorted(asked)
    assert len(set(asked)) == 5


def test_a_second_try_finds_what_the_first_prepared() -> None:
    assert prepared(plan()) == prepared(plan())


def test_a_model_that_changed_between_two_tries_is_refused() -> None:
    prepared(plan())
    other = dataclasses.replace(plan(), model=dataclasses.replace(MODEL, revision="other"))
    with pytest.raises(UserError, match="trigger a new run instead of clearing this one"):
        prepared(other)


def test_more_shards_than_questions_are_refused_only_where_they_were_asked_for() -> None:
    with pytest.raises(UserError, match="6 shards were asked for, but there are only 5"):
        prepared(plan(num_shards=6))
    assert prepared(plan(num_shards=None))["world_size"] == 5


def test_recording_again_changes_nothing(state: Path) -> None:
    run = plan()
    store = RunStore(str(state / "store"), "run-1")
    metric = MetricRecord(
        benchmark="Starter",
        benchmark_version="1",
        metric="accuracy",
        judge_version="1",
        value=0.4,
        n=5,
        coverage=1.0,
    )
    write_json(store.spec, run.spec(1))
    write_json(store.scorecard, ScoreCard([metric], None).to_dict())
    done = {"plan": run.to_dict(), "world_size": 0, "requests": 5, "reused": 5}
    before = datetime.now(UTC)
    first = record(done, "evaluate")
    rows = _runs(state)
    assert record(done, "evaluate") == first
    assert _runs(state) == rows
    assert first["scores"][0]["accuracy"] == 0.4
    assert first["wall_seconds"] >= (before - run.started).total_seconds()


def _runs(state: Path) -> list[tuple[object, ...]]:
    with create_engine(f"sqlite:///{state / 'nightshard.db'}").connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT * FROM runs"))]


def waits(run: RunPlan, *, going: bool = True, deployment: str = "d1") -> list[str]:
    return claim(run.to_dict(), deployment, "evaluate", lambda _dag, _run: going)


def test_a_run_waits_for_another_of_the_same_checkpoint_and_benchmarks() -> None:
    other = dataclasses.replace(plan(), run_key="run-2", dag_run_id="scheduled")
    assert waits(plan()) == []
    assert waits(other) == ["run-1"]
    assert waits(plan()) == []  # a second try keeps what it has


@pytest.mark.parametrize(
    "change",
    [
        *({"temperature": 0.1}, {"seed": 9}, {"system_prompt": "Think."}),
        *({"tasks": ["MATH500"]}, {"force": True}),
    ],
)
def test_runs_that_share_no_answer_go_on_side_by_side(change: dict[str, object]) -> None:
    asked = {**plan().params.model_dump(mode="json"), **change}
    other = dataclasses.replace(plan(), run_key="run-2", params=parse_run_params(asked))
    assert waits(plan()) == waits(other) == []


def test_nobody_waits_for_a_run_that_has_ended_or_recorded_its_scores() -> None:
    other = dataclasses.replace(plan(), run_key="run-2", dag_run_id="scheduled")
    waits(plan())
    assert waits(other, going=False) == []
    assert waits(plan()) == ["run-2"]
    release(open_database(current_settings().database_url), "run-2")
    assert waits(plan()) == []


def test_a_run_of_another_installation_is_waited_for_until_it_gives_up_its_claims() -> None:
    other = dataclasses.replace(plan(), run_key="run-2", dag_run_id="scheduled")
    waits(plan(), deployment="d2")
    assert waits(other, going=False) == ["run-1"]


def test_a_task_that_prepared_already_waits_for_nobody() -> None:
    other = dataclasses.replace(plan(), run_key="run-2", dag_run_id="scheduled")
    prepared(other)
    waits(plan())
    assert waits(other) == []
