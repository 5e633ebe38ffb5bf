"""Stored answers are judged again, and the earlier verdicts stay."""

import datetime
import json

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner
from support.merging import answers_to
from upath import UPath

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem, Verdict
from nightshard.benchmarks.judges.pool import JudgeError
from nightshard.benchmarks.requests import build_requests
from nightshard.cli.rescore import rescore as rescore_command
from nightshard.core.errors import UserError
from nightshard.orchestration.steps import rescoring
from nightshard.results.arrow import MERGED_SCHEMA, problems_to_table, requests_to_table
from nightshard.results.database import open_database
from nightshard.results.read import get_run
from nightshard.results.records import ModelRecord, RunRecord
from nightshard.results.rescore import rescore
from nightshard.results.store import RunStore, read_json, read_table, write_table
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

PROBLEMS = [Problem(f"p{number}", f"q{number}", str(number)) for number in range(4)]
RUN = RunRecord(
    run_key="run-1",
    model=ModelRecord(name="m", revision="r", path="/m"),
    fingerprint="f",
    cluster="local",
    status="scored",
    num_shards=1,
    requests=4,
    started_at=datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC),
)
TEXTS = ["0", "1", "nothing", "\\boxed{3}"]


@pytest.fixture
def store(tmp_path) -> RunStore:
    """A run's requests, problems and merged answers."""
    made = RunStore(UPath(tmp_path / "store"), "run-1")
    requests = build_requests(registry.get("MATH500"), PROBLEMS)
    write_table(made.requests, requests_to_table(requests))
    write_table(made.problems, problems_to_table({"MATH500": PROBLEMS}))
    write_table(made.answers, answers_to(requests, TEXTS))
    return made


def strict(judgements):
    return [
        Verdict(one.text == one.problem.gold, one.text, "letter by letter") for one in judgements
    ]


def test_verdicts_of_an_earlier_release_are_judged_again(store: RunStore) -> None:
    rescore(store, judge=strict)
    write_table(store.verdicts, read_table(store.verdicts).drop_columns(["credit"]))
    assert len(rescore(store).changed) == 1
    assert "credit" in read_table(store.verdicts).column_names


def test_a_new_judge_changes_sides_and_the_earlier_verdicts_stay(store: RunStore) -> None:
    first = rescore(store, judge=strict)
    before = read_table(store.verdicts)

    second = rescore(store)

    assert (first.new, first.changed) == (True, ())
    (changed,) = second.changed
    assert (changed.problem_id, changed.correct, changed.before) == ("p3", True, "letter by letter")
    kept = read_table(store.folder / "history" / "verdicts-001.parquet")
    assert kept.equals(before)
    old = read_json(store.folder / "history" / "scorecard-001.json")["metrics"][0]["value"]
    assert (old, read_json(store.scorecard)["metrics"][0]["value"]) == (0.5, 0.75)


def test_judging_again_with_the_same_judge_changes_nothing(store: RunStore) -> None:
    rescore(store)
    again = rescore(store)
    assert (again.new, again.changed) == (False, ())
    assert not (store.folder / "history").exists()


def test_what_cannot_be_judged_now_keeps_its_score(store: RunStore) -> None:
    rescore(store, judge=strict)

    def broken(judgements):
        return [JudgeError("out of order") for _ in judgements]

    with pytest.raises(UserError, match="out of order"):
        rescore(store, judge=broken)
    assert read_table(store.verdicts).num_rows == 4

    problems = {"MATH500": PROBLEMS, "GSM8K": PROBLEMS}
    requests = [
        request for name in problems for request in build_requests(registry.get(name), PROBLEMS)
    ]
    rows = [
        {
            "request_id": request.request_id,
            "benchmark": request.benchmark,
            "problem_id": request.problem_id,
            "repeat_idx": 0,
            "text": request.problem_id[1:],
        }
        for request in requests
    ]
    write_table(store.requests, requests_to_table(requests))
    write_table(store.problems, problems_to_table(problems))
    write_table(store.answers, pa.Table.from_pylist(rows, schema=MERGED_SCHEMA))
    rescore(store, judge=strict)

    def half(judgements):
        work = list(judgements)
        return broken(work) if work[0].benchmark == "GSM8K" else strict(work)

    again = rescore(store, judge=half)

    assert "out of order" in again.card.failures["GSM8K"]
    assert (again.new, again.changed) == (False, ())
    assert {one.benchmark for one in again.card.metrics} == {"MATH500", "GSM8K"}


def test_a_person_sees_what_changed_and_the_database_has_the_score(
    store: RunStore, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    monkeypatch.setenv("NIGHTSHARD_DB_URL", url)
    monkeypatch.setenv("NIGHTSHARD_STORE", str(store.root))
    record_run(open_database(url), RUN)
    rescore(store, judge=strict)
    group = click.Group(commands=[rescore_command])

    said = CliRunner().invoke(group, ["rescore", "run-1"]).output
    again = CliRunner().invoke(group, ["rescore", "run-1", "--json"]).output

    assert "run-1: 4 answers judged, 1 changed sides." in said
    assert "MATH500 p3, repeat 1: right now" in said
    assert json.loads(again)[0]["new"] is False
    scores = {one.metric: one.value for one in get_run(open_database(url), "run-1").metrics}
    assert scores["accuracy"] == 0.75


def test_the_task_of_the_dag_does_the_same(
    store: RunStore, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHARD_DB_URL", f"sqlite:///{tmp_path}/a.db")
    monkeypatch.setenv("NIGHTSHARD_STORE", str(store.root))
    record_run(open_database(f"sqlite:///{tmp_path}/a.db"), RUN)
    rescore(store, judge=strict)

    told = rescoring.rescore_run("run-1")

    assert (told["judged"], told["changed"], told["new"]) == (4, 1, True)
    assert rescoring.chosen_runs([], "MATH500") == ["run-1"]
    assert rescoring.chosen_runs(["run-1", "run-1"], None) == ["run-1"]
    with pytest.raises(UserError, match="No run in the database has scores of 'AIME24'"):
        rescoring.chosen_runs([], "AIME24")
    with pytest.raises(UserError, match="one of the two"):
        rescoring.chosen_runs(["run-1"], "MATH500")


def test_a_run_whose_answers_are_gone_is_a_sentence(tmp_path) -> None:
    with pytest.raises(UserError, match="is not there"):
        rescore(RunStore(UPath(tmp_path), "run-2"))
