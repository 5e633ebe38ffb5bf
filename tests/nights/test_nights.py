"""Nights, backfills and announcements on a real Airflow: each checkpoint is evaluated once."""

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.parts import VICTIMS, await_parts
from support.slurm_watch import watched_slurm
from support.stack import LISTED, NIGHTLY_CAP, Stack, eventually

from nightshard.results.database import open_database
from nightshard.results.read import list_runs

pytestmark = pytest.mark.e2e

MONTH_S = 2700
LOOK_S = 1.0
TODAY = datetime.now(UTC).replace(hour=1, minute=0, second=0, microsecond=0)
"""End of an interval of the schedule."""

ENDS = {"success", "failed"}


class Rest:
    """Airflow's REST API as far as these tests use it."""

    def __init__(self, stack: Stack) -> None:
        airflow = stack.airflow
        self.client = httpx.Client(base_url=airflow.url, timeout=30)
        body = {"username": airflow.username, "password": airflow.password}
        token = self.client.post("/auth/token", json=body).raise_for_status().json()
        self.client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(f"/api/v2/{path}", params=query).raise_for_status().json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(f"/api/v2/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def backfill(self, **asked: Any) -> int:
        """Create a backfill of ``nightly``; return its id."""
        body = {"dag_id": "nightly", "dag_run_conf": {}, **asked}
        return int(self.post("backfills", body)["id"])

    def await_backfill(self, number: int) -> None:
        eventually(lambda: self.get(f"backfills/{number}")["completed_at"], "the backfill", MONTH_S)

    def unpause(self, dag_id: str) -> None:
        body = {"is_paused": False}
        self.client.patch(f"/api/v2/dags/{dag_id}", json=body).raise_for_status()

    def runs(self, dag_id: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(f"dags/{dag_id}/dagRuns", limit=100, offset=len(found), **query)
            found += page["dag_runs"]
            if len(found) >= page["total_entries"]:
                return found

    def night(self, since: datetime, until: datetime) -> str:
        """Run ``nightly`` by hand for an interval; return the run's id."""
        conf = {"since": since.isoformat(), "until": until.isoformat()}
        body = {"logical_date": None, "conf": conf}
        return str(self.post("dags/nightly/dagRuns", body)["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def end(self, dag_id: str, run_id: str) -> str:
        """Wait for the end of a run; return how it ended."""

        def ended() -> str | None:
            state = self.state(dag_id, run_id)
            return state if state in ENDS else None

        return eventually(ended, f"the end of {run_id}", MONTH_S)

    def tasks(self, dag_id: str, run_id: str) -> dict[tuple[str, int], str]:
        page = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=100)
        return {(one["task_id"], one["map_index"]): one["state"] for one in page["task_instances"]}


@pytest.fixture(scope="module")
def rest(stack: Stack) -> Rest:
    api = Rest(stack)
    eventually(lambda: known(api), "the DAG nightly")
    api.unpause("nightly")
    return api


def known(api: Rest) -> bool:
    with suppress(httpx.HTTPStatusError):
        return bool(api.get("dags/nightly"))
    return False


@pytest.fixture
def checkpoints(stack: Stack) -> Iterator[Callable[[str, int, datetime], Path]]:
    """Make a checkpoint of a training that was whole at some time; all are gone in the end."""
    root = stack.settings.state / "checkpoints"

    def make(training: str, step: int, at: datetime) -> Path:
        folder = root / training / f"checkpoint-{step}"
        shutil.copytree(stack.model, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "step": step, "of": training}))
        for file in folder.iterdir():
            os.utime(file, (at.timestamp(), at.timestamp()))
        return folder

    yield make
    shutil.rmtree(root, ignore_errors=True)


@contextmanager
def watched_cap(rest: Rest) -> Iterator[list[int]]:
    """Watch how many evaluations go on at the same time."""
    seen: list[int] = []
    stop = threading.Event()

    def keep_looking() -> None:
        while not stop.wait(LOOK_S):
            with suppress(httpx.HTTPError):
                page = rest.get("dags/evaluate/dagRuns", state=["queued", "running"], limit=100)
                seen.append(page["total_entries"])

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@pytest.mark.timeout(MONTH_S)
def test_a_week_of_nights_and_a_month_of_backfill_evaluate_each_checkpoint_once(
    stack: Stack, rest: Rest, checkpoints: Callable[[str, int, datetime], Path]
) -> None:
    """40 checkpoints in 37 days, found by a backfill, by nights, and by a night over everything,
    while triggerer and scheduler are killed."""
    week, month = TODAY - timedelta(days=7), TODAY - timedelta(days=37)
    hours = 37 * 24 / 40
    made = [checkpoints("run7", n, month + timedelta(hours=hours * (n + 0.5))) for n in range(40)]
    with watched_cap(rest) as going, watched_slurm(stack) as watch:
        backfill = rest.backfill(
            from_date=month.isoformat(),
            to_date=(week - timedelta(days=1)).isoformat(),
            run_backwards=True,
            max_active_runs=4,
            reprocess_behavior="failed",
        )
        days = [week + timedelta(days=n) for n in range(7)]
        nights = [rest.night(day, day + timedelta(days=1)) for day in days]
        nights.append(rest.night(TODAY - timedelta(days=12), TODAY))
        for victim in ("triggerer", "scheduler", "triggerer"):
            done = len(rest.runs("evaluate", state="success"))
            eventually(
                lambda: len(rest.runs("evaluate", state="success")) >= done + 4,  # noqa: B023
                "four more evaluations",
                MONTH_S,
            )
            VICTIMS[victim](stack)
            await_parts(stack)
        for night in nights:
            assert rest.end("nightly", night) == "success"
        rest.await_backfill(backfill)
    nightly = rest.runs("nightly")
    assert Counter(one["run_type"] for one in nightly)["backfill"] == 30
    assert {one["state"] for one in nightly} == {"success"}
    evaluated = [one for one in rest.runs("evaluate") if "/run7/" in one["conf"]["model"]]
    assert Counter(one["conf"]["model"] for one in evaluated) == Counter(map(str, made))
    assert {one["state"] for one in evaluated} == {"success"}
    runs = list_runs(open_database(stack.settings.database_url), model="checkpoint-")
    keys = [one.run_key for one in runs if one.cluster == "echo"]
    assert len(keys) == 40
    for key in keys:
        assert {name: len(ids) for name, ids in watch.arrays(key).items()} == {f"ns-{key}-a1": 1}
    # A task whose process dies with the scheduler, between starting its run and deferring, counts
    # no more until it is tried again; for that moment one more may go on.
    assert NIGHTLY_CAP in going
    assert max(going) <= NIGHTLY_CAP + 1
    assert sum(count > NIGHTLY_CAP for count in going) <= len(going) / 20


def test_a_quiet_night_is_green_and_says_so(stack: Stack, rest: Rest) -> None:
    night = rest.night(TODAY - timedelta(days=400), TODAY - timedelta(days=399))
    assert rest.end("nightly", night) == "success"
    tasks = rest.tasks("nightly", night)
    assert tasks["report", -1] == "success"
    log = rest.get(f"dags/nightly/dagRuns/{night}/taskInstances/report/logs/1", map_index=-1)
    assert "Nothing new" in json.dumps(log)


def test_a_source_that_cannot_be_reached_is_red_and_the_others_go_on(
    stack: Stack, rest: Rest, checkpoints: Callable[[str, int, datetime], Path]
) -> None:
    at = TODAY - timedelta(days=200)
    made = checkpoints("run8", 1, at)
    listed = stack.settings.state / "checkpoints.csv"
    listed.unlink()
    try:
        night = rest.night(at - timedelta(hours=1), at + timedelta(hours=1))
        assert rest.end("nightly", night) == "failed"
    finally:
        listed.write_text(LISTED)
    tasks = rest.tasks("nightly", night)
    assert (tasks["find", 0], tasks["find", 1]) == ("success", "failed")
    assert tasks["report", -1] == "upstream_failed"
    (run,) = (one for one in rest.runs("evaluate") if one["conf"]["model"] == str(made))
    assert run["state"] == "success"
    assert run["conf"]["asked_by"] == f"nightly/{night}"
    # Each leads to the other.
    its = f"dags/evaluate/dagRuns/{run['dag_run_id']}/taskInstances/plan/links"
    back = rest.get(its)["extra_links"]["Asked by"]
    assert back == f"/dags/nightly/runs/{night.replace('+', '+')}"
    task = f"dags/nightly/dagRuns/{night}/taskInstances/echo.evaluate/links"
    there = rest.get(task, map_index=0)["extra_links"]["Triggered DAG"]
    assert there.endswith(f"/dags/evaluate/runs/{run['dag_run_id']}")


def test_a_failed_evaluation_is_run_again_by_a_backfill_that_asks_for_it(
    stack: Stack, rest: Rest, checkpoints: Callable[[str, int, datetime], Path]
) -> None:
    at = TODAY - timedelta(days=300)
    broken = checkpoints("run9", 1, at)
    tokenizer = broken / "tokenizer_config.json"
    whole = tokenizer.read_text()
    tokenizer.write_text(whole.replace("{", "[", 1))
    os.utime(tokenizer, (at.timestamp(), at.timestamp()))
    span = {"from_date": (at - timedelta(hours=24)).isoformat(), "to_date": at.isoformat()}

    def run(behaviour: str) -> None:
        asked = {**span, "max_active_runs": 2, "reprocess_behavior": behaviour}
        rest.await_backfill(rest.backfill(**asked))

    run("none")
    (failed,) = (one for one in rest.runs("evaluate") if one["conf"]["model"] == str(broken))
    assert failed["state"] == "failed"
    # As long and as old as before, so that it is the same checkpoint.
    tokenizer.write_text(whole)
    os.utime(tokenizer, (at.timestamp(), at.timestamp()))
    run("failed")
    (again,) = (one for one in rest.runs("evaluate") if one["conf"]["model"] == str(broken))
    assert again["state"] == "success", why(rest, again)


def why(rest: Rest, run: dict[str, Any]) -> str:
    """Tell the tasks of a run of ``evaluate`` and of the night that asked for it."""
    dag_id, _, night = run["conf"]["asked_by"].partition("/")
    mine = rest.tasks("evaluate", run["dag_run_id"])
    return f"{mine}\n{rest.state(dag_id, night)} {rest.tasks(dag_id, night)}"


def test_an_announced_checkpoint_is_evaluated_at_once_and_its_scores_are_an_asset(
    stack: Stack, rest: Rest, checkpoints: Callable[[str, int, datetime], Path]
) -> None:
    made = checkpoints("run10", 1, TODAY)
    (asset,) = rest.get("assets", name_pattern="nightshard_checkpoints")["assets"]
    rest.post("assets/events", {"asset_id": asset["id"], "extra": {"model": str(made)}})

    def evaluated() -> dict[str, Any] | None:
        mine = (one for one in rest.runs("evaluate") if one["conf"]["model"] == str(made))
        return next((one for one in mine if one["state"] in ENDS), None)

    run = eventually(evaluated, "the evaluation")
    assert run["state"] == "success"
    assert run["conf"]["asked_by"].startswith("arrivals/")
    events = rest.get("assets/events", source_run_id=run["dag_run_id"])["asset_events"]
    assert [one["extra"]["accuracy"] for one in events] == [{"Starter": 0.0}]
    assert events[0]["uri"] == "nightshard://scores/checkpoint-1"
