"""Evalchemy's scores come along: from its results files and from its database."""

import datetime
import json
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from nightshard.cli import cli
from nightshard.core.errors import UserError
from nightshard.results.board import read_board
from nightshard.results.database import open_database
from nightshard.results.predecessor import run_from_results, split_name
from nightshard.results.read import list_results

pytestmark = pytest.mark.integration

WHEN = datetime.datetime(2025, 5, 1, 10, 20, tzinfo=datetime.UTC)
RESULTS = {
    "results": {
        "AIME24": {
            "num_total": 30,
            "solved_avg": 6.0,
            "run_stats": [{"repetition": 1, "accuracy": 0.2}],
            "accuracy_avg": 0.2,
            "accuracy_std_err": 0.01,
            "num_repeat": 10,
        },
        "LiveCodeBench": {"num_total": 511, "accuracy_avg": 0.4, "accuracy_easy_avg": 0.7},
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.5,
            "exact_match_stderr,strict-match": 0.02,
        },
        "broken": {"accuracy": float("nan")},
    },
    "config": {"model": "hf", "model_args": "pretrained=org/model-step100,dtype=auto"},
    "git_hash": "abc",
    "date": WHEN.timestamp(),
}


def old_database(url: str) -> None:
    """Build a database with its columns and types, without a unique key, as it is."""
    engine = sa.create_engine(url)
    tables = sa.MetaData()
    moment = sa.DateTime(timezone=True)
    models = sa.Table(
        "models",
        tables,
        sa.Column("id", sa.Uuid, primary_key=True),
        *(sa.Column(name, sa.Text) for name in ("name", "weights_location", "training_status")),
        sa.Column("training_parameters", sa.JSON),
        sa.Column("training_start", moment),
    )
    settings = sa.Table(
        "evalsettings",
        tables,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("parameters", sa.JSON),
    )
    results = sa.Table(
        "evalresults",
        tables,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id")),
        sa.Column("eval_setting_id", sa.Uuid, sa.ForeignKey("evalsettings.id")),
        sa.Column("score", sa.Double),
        sa.Column("creation_time", moment),
        sa.Column("completions_location", sa.Text),
    )
    tables.create_all(engine)
    model = uuid.uuid4()
    scores = (
        *(("AIME24_accuracy_avg", 0.2, 0), ("AIME24_accuracy_std_err", 0.01, 0)),
        *(
            ("MATH500_accuracy", 0.8, 1),
            ("MATH500_accuracy", 0.82, 2),
            ("MATH500_num_solved", 400, 2),
        ),
        *(("MATH500_accuracy", 0.9, 240), ("AMC23_accuracy_avg", None, 240)),
    )
    with engine.begin() as connection:
        connection.execute(
            models.insert(),
            {
                "id": model,
                "name": "run7/checkpoint-300",
                "weights_location": "/w",
                "training_parameters": {"lr": 1e-5},
                "training_start": WHEN,
            },
        )
        for name, score, minutes in scores:
            setting = uuid.uuid4()
            connection.execute(settings.insert(), {"id": setting, "name": name, "parameters": {}})
            connection.execute(
                results.insert(),
                {
                    "id": uuid.uuid4(),
                    "model_id": model,
                    "eval_setting_id": setting,
                    "score": score,
                    "creation_time": WHEN + datetime.timedelta(minutes=minutes),
                    "completions_location": "org/outputs",
                },
            )


def test_a_results_file_becomes_a_run_and_says_where_it_is_from() -> None:
    run = run_from_results(json.dumps(RESULTS), "results.json")
    scores = {(one.benchmark, one.metric, one.subset): one for one in run.metrics}
    assert set(scores) == {
        ("AIME24", "accuracy", ""),
        ("LiveCodeBench", "accuracy", ""),
        ("LiveCodeBench", "accuracy", "easy"),
        ("evalchemy:gsm8k", "exact_match,strict-match", ""),
    }
    aime = scores["AIME24", "accuracy", ""]
    assert (aime.value, aime.stderr, aime.n) == (0.2, 0.01, 30)
    assert aime.partial
    assert {one.judge_version for one in run.metrics} == {"evalchemy"}
    assert scores["evalchemy:gsm8k", "exact_match,strict-match", ""].stderr == 0.02
    assert (run.model.name, run.model.family, run.model.step) == (
        "org/model-step100",
        "org/model",
        100,
    )
    assert run.finished_at == WHEN


def test_its_database_becomes_runs_and_a_score_that_it_wrote_twice_counts_once(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = f"sqlite:///{tmp_path}/evalchemy.db"
    old_database(old)
    monkeypatch.setenv("NIGHTSHARD_DB_URL", database_url)
    for _ in range(2):
        done = CliRunner().invoke(cli, ["import-scores", "--database", old])
        assert done.output == "2 runs with 3 scores are in the results database.\n"
    engine = open_database(database_url)
    found = {(one.when.hour, one.score.benchmark): one.score.value for one in list_results(engine)}
    assert found == {(10, "AIME24"): 0.2, (10, "MATH500"): 0.82, (14, "MATH500"): 0.9}
    (row,) = read_board(engine).rows
    assert (row.family, row.step, row.cells["MATH500"].value) == ("run7", 300, 0.9)
    assert row.cells["MATH500"].partial


def test_files_and_its_database_in_postgresql_come_by_one_command(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_database(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    monkeypatch.setenv("NIGHTSHARD_DB_URL", f"sqlite:///{tmp_path}/ours.db")
    file = tmp_path / "results.json"
    file.write_text(json.dumps(RESULTS))
    address = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    done = CliRunner().invoke(cli, ["import-scores", str(file), "--database", address])
    assert done.output == "3 runs with 7 scores are in the results database.\n"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("AIME24_accuracy_avg", ("AIME24", "accuracy_avg")),
        ("LiveCodeBenchV5_accuracy", ("LiveCodeBenchV5", "accuracy")),
        ("gsm8k_cot_exact_match,strict-match", ("gsm8k_cot", "exact_match,strict-match")),
        ("WildBench_score", ("WildBench", "score")),
        ("odd", ("odd", "score")),
    ],
)
def test_a_settings_name_is_split_into_task_and_metric(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": 3}', '{"results": {"a": {}}}'])
def test_another_file_gets_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"no results file|no scores"):
        run_from_results(text, "x.json")


def test_another_database_gets_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["import-scores", "--database", f"sqlite:///{tmp_path}/x.db"])
    assert "Evalchemy's database cannot be read" in str(done.exception)
