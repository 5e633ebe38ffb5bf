"""The command line against Airflow's REST API, cut at the wire."""

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

from nightshard.cli import cli
from nightshard.cli.api import AirflowApi
from nightshard.cli.launch import check_params, closing_line, watch
from nightshard.cli.watch import failure_sentences, follow
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings

pytestmark = pytest.mark.unit

Handler = Callable[[httpx.Request], httpx.Response]


def api(answers: dict[str, Any]) -> AirflowApi:
    """A client whose server gives these answers by path; a status code stands for an error."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "example"})
        answer = answers[request.url.path]
        if isinstance(answer, int):
            return httpx.Response(
                answer,
                json={
                    "detail": "Invalid input for param num_shards: 0 < 1\n\nFailed in schema: {}"
                },
            )
        return httpx.Response(200, json=answer)

    return AirflowApi("http://example", "admin", "x", transport=httpx.MockTransport(handle))


def test_an_old_line_with_underscores_is_understood() -> None:
    answer = CliRunner().invoke(
        cli,
        ["launch", "--model_name", "org/name", "--num_shards", "0", "--max_job_duration", "2"],
        env={"NIGHTSHARD_AIRFLOW_URL": "http://127.0.0.1:9"},
    )
    assert isinstance(answer.exception, UserError)
    assert "num_shards is 0" in str(answer.exception)


def test_a_silent_airflow_is_one_sentence() -> None:
    with pytest.raises(UserError, match="does not answer"):
        AirflowApi("http://127.0.0.1:9", "admin", "x")


def test_a_refused_login_names_the_variables() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(401, json={}))
    with pytest.raises(UserError, match="NIGHTSHARD_AIRFLOW_PASSWORD"):
        AirflowApi("http://example", "admin", "x", transport=transport)


def test_refused_params_come_back_as_airflow_says() -> None:
    client = api({"/api/v2/dags/evaluate/dagRuns": 400})
    with pytest.raises(UserError) as caught:
        client.trigger({})
    sentence = "Airflow refuses these parameters: Invalid input for param num_shards: 0 < 1"
    assert str(caught.value) == sentence


@pytest.mark.parametrize("status", [403, 500])
def test_an_airflow_in_trouble_is_one_sentence(status: int) -> None:
    client = api({"/api/v2/dags/evaluate": status, "/api/v2/dags/evaluate/dagRuns/r": status})
    with pytest.raises(UserError, match=f"answers {status} .* to GET /api/v2/dags/evaluate;"):
        client.dag_exists()
    with pytest.raises(UserError, match=f"answers {status} "):
        client.run_state("r")


def test_a_dag_that_is_not_parsed_yet_is_no_error() -> None:
    assert not api({"/api/v2/dags/evaluate": 404}).dag_exists()


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match="is no address of an Airflow"):
        AirflowApi("http://example:port", "admin", "x")


def test_an_unknown_benchmark_or_cluster_is_refused_before_airflow_hears_of_it() -> None:
    settings = Settings.from_env({})
    with pytest.raises(UserError, match="did you mean MATH500"):
        check_params({"model": "m", "tasks": ["MATH50"], "cluster": "local"}, settings)
    with pytest.raises(UserError, match="There is no cluster 'lokal'"):
        check_params({"model": "m", "tasks": ["Starter"], "cluster": "lokal"}, settings)


def test_a_value_that_json_cannot_carry_is_refused() -> None:
    values = {"model": "m", "tasks": ["Starter"], "cluster": "local", "max_job_hours": math.inf}
    with pytest.raises(UserError, match="max_job_hours is inf, which cannot be used"):
        check_params(values, Settings.from_env({}))


RUN = "/api/v2/dags/evaluate/dagRuns/r"
FAILED_SHARD = {
    "task_id": "shard",
    "map_index": 1,
    "rendered_map_index": "shard 2 of 8",
    "state": "failed",
    "try_number": 1,
    "duration": 3.0,
}


def test_a_failed_run_says_why() -> None:
    detail = {"exc_type": "AirflowFailException", "exc_value": "out of memory"}
    client = api(
        {
            f"{RUN}/taskInstances": {"task_instances": [FAILED_SHARD], "total_entries": 1},
            f"{RUN}/taskInstances/shard/logs/1": {
                "content": [{"event": "x"}, {"event": "failed", "error_detail": [detail]}]
            },
        }
    )
    assert failure_sentences(client, "r") == ["shard 2 of 8: out of memory"]


def test_without_a_terminal_each_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    client = api(
        {
            RUN: {"state": "failed"},
            f"{RUN}/taskInstances": {"task_instances": [FAILED_SHARD], "total_entries": 1},
            f"{RUN}/taskInstances/shard/logs/1": {"content": []},
        }
    )
    assert follow(client, "r", Console(force_terminal=False)) == "failed"
    assert capsys.readouterr().out == "  shard 2 of 8: failed (3.0 s)\n"


SUMMARY = {
    "run_key": "k",
    "requests": 60,
    "reused": 60,
    "submitted": 0,
    "scores": [],
    "failures": {"AIME24": "3 answers[/] are missing"},
    "shards": 0,
    "wall_seconds": 3.0,
}
RESULT = f"{RUN}/taskInstances/record/xcomEntries/return_value"
PREVIEW = f"{RUN}/taskInstances/prepare_dataset/xcomEntries/preview"
NO_TASKS = {
    RUN: {"state": "success"},
    f"{RUN}/taskInstances": {"task_instances": [], "total_entries": 0},
}


def test_a_run_of_known_answers_says_so_and_names_what_was_not_scored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = api({**NO_TASKS, RESULT: {"value": SUMMARY}})
    assert watch(client, "r", Console(width=200)) == SUMMARY
    said = capsys.readouterr().out
    assert "All 60 answers exist already; nothing was generated again" in said
    assert "Not scored: 3 answers[/] are missing" in said


def test_a_run_that_a_person_marked_as_successful_has_no_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {**NO_TASKS, RESULT: 404, PREVIEW: 404}
    assert watch(api(said), "r", Console(width=200)) is None
    assert "ended without scores" in capsys.readouterr().out


def test_a_dry_run_ends_with_what_it_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    said = {**NO_TASKS, RESULT: 404, PREVIEW: {"value": {"text": "Dry run of k: 12 requests"}}}
    assert watch(api(said), "r", Console(width=200)) == {}
    assert "Dry run of k: 12 requests" in capsys.readouterr().out


def test_the_last_line_can_be_read_by_a_script() -> None:
    summary = {
        "run_key": "k",
        "scores": [{"benchmark": "Starter", "accuracy": 0.35, "n": 60}],
        "shards": 2,
        "wall_seconds": 74.6,
    }
    line = "nightshard: run k scored Starter accuracy=0.350 n=60 shards=2 wall=75s"
    assert closing_line(summary) == line
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("silence_s", [60.0, 0.0], ids=["patient", "impatient"])
def test_following_outlives_a_restart_of_the_api_server(
    silence_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightshard.cli.watch.POLL_S", 0.0)
    replies = iter([httpx.ConnectError("down"), httpx.ConnectError("down"), "success"])

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "example"})
        if request.url.path.endswith("/taskInstances"):
            return httpx.Response(200, json={"task_instances": [], "total_entries": 0})
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(200, json={"state": reply})

    client = AirflowApi("http://example", "admin", "x", transport=httpx.MockTransport(handle))
    console = Console(force_terminal=False)
    if silence_s:
        assert follow(client, "r", console, silence_s) == "success"
    else:
        with pytest.raises(UserError, match="does not answer"):
            follow(client, "r", console, silence_s)
