"""A person looks after a run: the buttons on a shard, its log, and the terminal's commands."""

import base64
import configparser
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from playwright.sync_api import Page
from support.stack import Stack, eventually

pytestmark = pytest.mark.e2e

NIGHTSHARD = Path(sys.executable).parent / "nightshard"
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def run_id(stack: Stack) -> str:
    """A run of two slow shards, both with answers: minutes of work; the last test cancels it."""
    started = stack.trigger(
        {"tasks": ["Starter"], "repeats": 4, "num_shards": 2, "cluster": "slow", "seed": 31}
    )

    def at_work() -> bool:
        told = stack.cli("status", started, "--json")
        shards = json.loads(told.stdout)["shards"] if told.returncode == 0 else []
        return len(shards) == 2 and all(
            one["task_state"] == "deferred" and one["done"] for one in shards
        )

    eventually(at_work, "two shards with answers")
    return started


@pytest.fixture(scope="module")
def log_page(stack: Stack, run_id: str) -> str:
    """Address of the second shard's log."""
    return f"{stack.airflow.url}/nightshard/dags/evaluate/runs/{run_id}/shards/1/log"


def token(stack: Stack) -> str:
    login = {"username": stack.airflow.username, "password": stack.airflow.password}
    answer = httpx.post(f"{stack.airflow.url}/auth/token", json=login, timeout=60)
    return str(answer.json()["access_token"])


def token_without_rights(stack: Stack) -> str:
    """A user whom Airflow knows and who may read nothing: the admin's token without a role."""
    good = token(stack)
    payload = good.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(stack.settings.state / "airflow" / "airflow.cfg")
    secret = settings["api_auth"]["jwt_secret"]
    header = jwt.get_unverified_header(good)
    return jwt.encode({**claims, "sub": "guest", "role": None}, secret, header["alg"])


def get(url: str, bearer: str | None = None, **headers: str) -> httpx.Response:
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    return httpx.get(url, headers=headers, timeout=60)


def test_the_button_of_a_running_shard_leads_to_its_log_which_grows(
    stack: Stack, run_id: str, browser_page: Page
) -> None:
    task = f"{stack.airflow.url}/dags/evaluate/runs/{run_id}/tasks/shard/mapped/1/details"
    browser_page.goto(f"{stack.airflow.url}/auth/login")
    browser_page.fill('input[name="username"]', stack.airflow.username)
    browser_page.fill('input[name="password"]', stack.airflow.password)
    browser_page.click('button[type="submit"]')
    browser_page.wait_for_url(f"{stack.airflow.url}/")
    browser_page.goto(task)
    browser_page.wait_for_selector("text=Slurm job")
    browser_page.click("text=Remote log")
    browser_page.wait_for_selector("text=Shard 2 of 2")
    assert "2 of 2" in browser_page.title() or "Shard 2" in browser_page.title()
    assert "engine ready" in browser_page.inner_text("#log")
    assert "running on node" in browser_page.inner_text("#state")
    before = int(browser_page.inner_text("#done"))
    browser_page.wait_for_function(
        "before => Number(document.getElementById('done').textContent) > before", arg=before
    )
    assert browser_page.inner_text("#live") == "following"


def test_a_browser_without_a_login_comes_back_to_the_log_after_it(
    stack: Stack, log_page: str, browser_page: Page
) -> None:
    browser_page.goto(log_page)
    browser_page.fill('input[name="username"]', stack.airflow.username)
    browser_page.fill('input[name="password"]', stack.airflow.password)
    browser_page.click('button[type="submit"]')
    browser_page.wait_for_selector("text=Shard 2 of 2")


def test_who_is_not_logged_in_or_may_not_read_the_dag_sees_nothing(
    stack: Stack, log_page: str
) -> None:
    for address in (log_page, f"{log_page}.json", log_page.partition("/shards/")[0] + "/shards"):
        assert get(address).status_code == 401
        assert get(address, "no-token").status_code in {401, 403}
        assert get(address, token_without_rights(stack)).status_code == 403
        assert get(address, token(stack)).status_code == 200
    assert "/api/v2/auth/login?next=" in get(log_page, **HTML).headers["location"]


def test_a_log_endpoint_goes_on_where_it_stopped(stack: Stack, log_page: str) -> None:
    first: dict[str, Any] = get(f"{log_page}.json", token(stack)).json()
    assert first["shard"]["job_id"] in {line.split()[0] for line in stack.squeue()}
    more = get(f"{log_page}.json?offset={first['offset']}", token(stack)).json()
    assert more["start"] == first["offset"]
    assert first["lines"] not in more["lines"]


def test_status_shows_each_shard(stack: Stack, run_id: str) -> None:
    told = json.loads(stack.cli("status", run_id, "--json").stdout)
    shown = stack.cli("status", told["run_key"][:-2])
    assert told["run_key"] in shown.stdout, shown.stderr
    for shard in told["shards"]:
        assert shard["job_id"] in shown.stdout
    assert "2 running" in shown.stdout
    assert "tok/s" in shown.stdout


def test_logs_shows_the_shard_that_people_name(stack: Stack, run_id: str) -> None:
    shown = stack.cli("logs", run_id, "--shard", "2", "--lines", "1")
    assert len(shown.stdout.splitlines()) == 1
    assert "shard-00001-of-00002" in stack.cli("logs", run_id, "--shard", "2").stdout
    wrong = stack.cli("logs", run_id, "--shard", "3")
    assert wrong.returncode == 1
    assert "There is no shard 3; the shards of this run are 1 to 2." in wrong.stderr


def test_cancel_stops_one_shard_and_then_the_run(stack: Stack, run_id: str) -> None:
    follower = subprocess.Popen(
        [NIGHTSHARD, "logs", run_id, "--shard", "2", "--follow"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    one = stack.cli("cancel", run_id, "--shard", "1", "--yes")
    assert one.returncode == 0, one.stderr
    assert "Slurm has no job of it any more." in one.stdout
    shards = json.loads(stack.cli("status", run_id, "--json").stdout)["shards"]
    assert [bool(shard["alive"]) for shard in shards] == [False, True]
    assert stack.cli("cancel", run_id, "--yes").returncode == 0
    listed = {line.split()[0]: line.split()[2] for line in stack.squeue()}
    states = {listed.get(shard["job_id"]) for shard in shards}
    assert not states & {"PENDING", "RUNNING", "COMPLETING"}, listed
    log, remarks = follower.communicate(timeout=60)
    assert follower.returncode == 0
    # The worker ends by the signal, or because it has seen that its attempt is over.
    assert "interrupted by SIGTERM" in log or "it ends here" in log
    assert "Shard 2:" in remarks
    assert "has ended already (failed)" in stack.cli("cancel", run_id).stdout
