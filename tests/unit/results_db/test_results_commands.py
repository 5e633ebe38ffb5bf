"""`nightshard results` and `nightshard db`, as a person sees them."""

import dataclasses
import datetime
import io
import json

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner
from rich.console import Console
from upath import UPath

from nightshard.cli.results import db, results, score_table
from nightshard.core.errors import UserError
from nightshard.results import store
from nightshard.results.database import open_database
from nightshard.results.read import get_run
from nightshard.results.records import (
    AttemptRecord,
    MetricRecord,
    ModelRecord,
    RunRecord,
    ShardRecord,
)
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the command line on a database of this test's own; returns what it printed."""
    monkeypatch.setenv("NIGHTSHARD_DB_URL", f"sqlite:///{tmp_path}/a.db")
    monkeypatch.delenv("COLUMNS", raising=False)
    group = click.Group(
        commands=[results, db],
        context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
    )

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(group, list(arguments))
        if isinstance(result.exception, UserError):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return run


@pytest.fixture
def answers(tmp_path):
    """Answers of run `now`, two of which an earlier run had given."""
    path = UPath(tmp_path / "answers.parquet")
    columns = {
        "run_key": ["now", "now", "now", "before", "before"],
        "rank": [0, 0, 1, 3, 3],
        "attempt": [1, 1, 1, 2, 2],
    }
    store.write_table(path, pa.table(columns))
    return path


@pytest.fixture
def scores(tmp_path, answers):
    """Two recorded runs, `before` and `now`."""
    engine = open_database(f"sqlite:///{tmp_path}/a.db")
    for key, rank, attempt, hours in (("before", 3, 2, 0), ("now", 0, 1, 1)):
        record_run(
            engine,
            RunRecord(
                run_key=key,
                model=ModelRecord(name="org/model", revision="0123456789abcdef", path="/m"),
                fingerprint="fedcba",
                cluster="local",
                status="scored",
                num_shards=2,
                requests=5,
                reused=2,
                answers_url=str(answers),
                finished_at=NOON + datetime.timedelta(hours=hours),
                shards=(
                    ShardRecord(
                        rank=rank,
                        attempt=attempt,
                        state="COMPLETED",
                        job_id=f"7{rank}1",
                        array_job_id="700",
                        node=f"gpu{rank}",
                        rows=3,
                        output_tokens=4321,
                        load_s=4.25,
                        generate_s=31.5,
                    ),
                ),
                metrics=(
                    MetricRecord(
                        benchmark="Starter",
                        benchmark_version="1",
                        metric="accuracy",
                        value=0.35,
                        stderr=0.062,
                        ci_low=0.24,
                        ci_high=0.477,
                        n=60,
                        coverage=0.9999,
                        partial=key == "now",
                        judge_version="1",
                    ),
                ),
            ),
        )
    return engine


def drawn(renderable, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_an_empty_database_says_how_to_fill_it(call):
    assert "`nightshard launch`" in call("results")


def test_scores_are_listed_newest_first_with_interval_and_partial_mark(call, scores):
    now, before = call("results").splitlines()[1:3]
    assert "now" in now
    assert "2026-11-24 13:00" in now
    assert "0.350 ± 0.062" in now
    assert "0.240 to 0.477" in now
    assert "99.9 %, partial" in now
    assert "0123456789ab" in now
    assert "before" in before
    assert "partial" not in before


def test_filters_that_find_nothing_say_so(call, scores):
    assert "whose name contains 'nobody'" in call("results", "--model", "nobody")
    assert "latest run is now" in call("results", "--benchmark", "AIME24")
    assert "its status is scored" in call("results", "--run", "now", "--benchmark", "AIME24")


def test_a_limit_tells_that_older_scores_are_left_out(call, scores):
    output = call("results", "--limit", "1")
    assert "before" not in output
    assert "Older scores are left out" in output
    assert "left out" not in call("results", "--limit", "2")


def test_json_is_json(call, scores):
    rows = json.loads(call("results", "--json", "--run", "before"))
    assert [(row["run_key"], row["value"]) for row in rows] == [("before", 0.35)]


def test_a_trace_leads_from_the_score_to_slurm_job_and_node(call, scores):
    output = call("results", "--run", "now", "--trace")
    for fact in ("0.350 ± 0.062", "run now: scored on local", "fingerprint fedcba"):
        assert fact in output
    own, earlier = (line for line in output.splitlines() if "COMPLETED" in line)
    assert " ".join(own.split()) == "- 0 1 COMPLETED 701 (700_0) gpu0 2 3 4321 4.2 31.5"
    assert " ".join(earlier.split()) == ("before 3 2 COMPLETED 731 (700_3) gpu3 2 3 4321 4.2 31.5")
    assert "does not know attempt 1 of shard 1 of run now" in output


ATTEMPTS = (
    AttemptRecord(
        rank=0,
        attempt=1,
        state="node_failure",
        job_id="57_0",
        node="gpu2",
        elapsed_s=5400,
        gpus=4,
        done=0,
        message="Node gpu2 failed.",
        decision="again without gpu2",
        ended_at=NOON,
    ),
    AttemptRecord(
        rank=0,
        attempt=2,
        state="ended_well",
        job_id="58_0",
        node="gpu3",
        elapsed_s=900,
        gpus=4,
        done=3,
        decision="done",
        ended_at=NOON + datetime.timedelta(hours=1),
    ),
)


def with_attempts(engine, attempts) -> None:
    record_run(engine, dataclasses.replace(get_run(engine, "now"), attempts=attempts))


def test_a_trace_shows_each_attempt_with_its_cause_and_cost(call, scores):
    with_attempts(scores, ATTEMPTS)
    lines = [
        " ".join(line.split()) for line in call("results", "--run", "now", "--trace").splitlines()
    ]
    assert "0 1 node failure 57_0 gpu2 0 21600 again without gpu2 2026-11-24 12:00" in lines
    assert "0 2 ended well 58_0 gpu3 3 3600 done 2026-11-24 13:00" in lines
    assert lines[-1] == "GPU hours: 7.00, 6.00 of them in attempts that added no answer."


def test_a_trace_says_what_it_does_not_know_of_the_cost(call, scores):
    with_attempts(scores, (dataclasses.replace(ATTEMPTS[0], elapsed_s=None), ATTEMPTS[1]))
    last = call("results", "--run", "now", "--trace").splitlines()[-1]
    assert last == "GPU hours: 1.00; the run time of 1 attempts is not known."


def test_a_trace_as_json_has_the_attempts_too(call, scores):
    with_attempts(scores, ATTEMPTS)
    found = json.loads(call("results", "--run", "now", "--trace", "--json"))["run"]["attempts"]
    assert [(one["state"], one["gpu_seconds"]) for one in found] == [
        ("node_failure", 21600),
        ("ended_well", 3600),
    ]


def test_a_trace_as_json_holds_the_same(call, scores):
    found = json.loads(call("results", "--run", "now", "--trace", "--json"))
    assert [shard["shard"]["job_id"] for shard in found["shards"]] == ["701", "731"]
    assert found["run"]["fingerprint"] == "fedcba"


def test_a_trace_without_its_answers_still_shows_the_jobs(call, scores, answers):
    answers.unlink()
    output = call("results", "--run", "now", "--trace")
    assert "answers.parquet is not there" in output
    assert "701 (700_0)" in output


def test_a_trace_needs_a_run(call):
    assert "--run KEY" in call("results", "--trace", code=2)


def test_an_unknown_run_is_one_sentence(call, scores):
    with pytest.raises(UserError, match="did you mean before"):
        call("results", "--run", "befor")


def test_names_full_of_markup_and_control_characters_show_as_text():
    hostile = "[red]x[/red]\x1b[2J\n"
    row = {"model": hostile, "benchmark": "B", "value": 0.5}
    output = drawn(score_table([row]), 100)
    assert "[red]x[/red]�[2J�" in output
    assert "\x1b" not in output


def test_a_narrow_terminal_gets_a_table_a_run_and_no_key_is_cut(scores):
    row = {
        "model": "organisation/a-rather-long-model-name",
        "revision": "0123456789abcdef",
        "run_key": "20261124-120000-model-a1b2c3",
        "when": NOON,
        "benchmark": "Starter",
        "accuracy": 0.5,
        "n": 60,
    }
    narrow = drawn(score_table([row, row | {"benchmark": "AIME24"}]), 70).splitlines()
    assert narrow[0].split() == ["organisation/a-rather-long-model-name", "0123456789ab"]
    assert "20261124-120000-model-a1b2c3" in narrow[1]
    assert [line.split()[0] for line in narrow[2:]] == ["Benchmark", "Starter", "AIME24"]
    wide = drawn(score_table([row]), 150).splitlines()
    assert len(wide) == 2
    assert "20261124-120000-model-a1b2c3" in wide[1]


def test_columns_that_no_score_fills_are_left_out():
    header = drawn(score_table([{"benchmark": "Starter", "accuracy": 0.5, "n": 2}]), 100)
    assert header.splitlines()[0].split() == ["Benchmark", "Accuracy", "n"]
    other = drawn(score_table([{"benchmark": "B", "metric": "pass@1", "value": 0.5}]), 100)
    assert other.splitlines()[0].split() == ["Benchmark", "Metric", "Score"]


def test_db_check_fails_before_the_upgrade_and_passes_after(call, tmp_path):
    with pytest.raises(UserError, match=r"has no tables yet.*nightshard db upgrade"):
        call("db", "check")
    assert not (tmp_path / "a.db").exists()
    assert "up to date" in call("db", "upgrade")
    assert "up to date" in call("db", "check")
    assert "up to date" in call("db", "upgrade")
