"""What follows the scores of a real run: the gate, the Hub or a folder, and whom it tells."""

import json
from pathlib import Path

import httpx
import pytest
from support.stack import FinishedRun, Stack, eventually

pytestmark = pytest.mark.e2e

PROBLEMS = 20


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Questions whose answer is always 9."""
    file: Path = tmp_path_factory.mktemp("questions") / "nines.jsonl"
    rows = [
        {"unique_id": f"q{n}", "problem": f"{n} + {9 - n}?", "answer": "9", "subject": "Sums"}
        for n in range(PROBLEMS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"MATH500": str(file)}


@pytest.fixture(scope="module")
def good(stack: Stack, questions: dict[str, str]) -> FinishedRun:
    """A run that has all answers right, with a gate, for the Hub."""
    return stack.run(
        {
            "tasks": ["MATH500"],
            "source": questions,
            "cluster": "echo",
            "num_shards": 2,
            "gate": "previous",
            "publish": "hub",
        }
    )


@pytest.fixture(scope="module")
def worse(stack: Stack, questions: dict[str, str], good: FinishedRun) -> FinishedRun:
    """The next one, which has all wrong, for a folder."""
    assert good.state == "success"
    return stack.run(
        {
            "tasks": ["MATH500"],
            "source": questions,
            "cluster": "wrong",
            "num_shards": 1,
            "gate": "previous",
            "publish": "folder",
        }
    )


def states(run: FinishedRun) -> dict[str, str]:
    return {one["task_id"]: one["state"] for one in run.tasks}


def test_a_first_run_passes_its_gate_and_is_published(stack: Stack, good: FinishedRun) -> None:
    assert good.state == "success"
    assert good.api.result(good.run_id, "gate")["verdict"] == "cannot tell"
    key = good.summary()["run_key"]
    dataset = stack.hub.datasets[f"org/{key}"]
    assert dataset.private
    assert {"README.md", "metrics.json", "data/MATH500/answers.parquet"} <= set(dataset.files)
    assert good.api.result(good.run_id, "publish") == f"{stack.hub.address}/datasets/org/{key}"


def test_a_worse_run_is_marked_and_keeps_its_scores(
    stack: Stack, good: FinishedRun, worse: FinishedRun
) -> None:
    assert worse.state == "failed"
    found = states(worse)
    assert (found["record"], found["gate"], found["publish"]) == ("success", "failed", "success")
    assert worse.summary()["scores"][0]["accuracy"] == 0
    key, baseline = worse.summary()["run_key"], good.summary()["run_key"]
    (gate,) = [one for one in worse.tasks if one["task_id"] == "gate"]
    log = worse.log(gate)
    assert f"Worse than {baseline}. MATH500: worse, 1.000 to 0.000" in log
    assert gate["try_number"] == 1
    shown = json.loads(stack.cli("results", "--run", key, "--json").stdout)
    assert shown


def test_a_run_is_published_into_a_folder(stack: Stack, worse: FinishedRun) -> None:
    folder = stack.settings.published / worse.summary()["run_key"]
    assert worse.api.result(worse.run_id, "publish") == str(folder)
    assert "MATH500" in (folder / "README.md").read_text()


def test_people_are_told_of_the_worse_run_once(stack: Stack, worse: FinishedRun) -> None:
    key = worse.summary()["run_key"]
    told = [one["text"] for one in stack.hook.posted if key in one["text"]]
    (said,) = [one for one in told if one.startswith("worse: ")]
    assert "MATH500: 0.000" in said
    assert "Gate: worse than" in said
    assert f"{stack.airflow.url}/nightshard/runs/{key}" in said
    assert not [one for one in stack.hook.posted if "scored" in one["text"]]


def test_the_leaderboard_marks_what_the_gate_said(stack: Stack, worse: FinishedRun) -> None:
    login = {"username": stack.airflow.username, "password": stack.airflow.password}
    token = httpx.post(f"{stack.airflow.url}/auth/token", json=login, timeout=60).json()
    answer = httpx.get(
        f"{stack.airflow.url}/nightshard/api/runs/{worse.summary()['run_key']}",
        headers={"Authorization": f"Bearer {token['access_token']}"},
        timeout=60,
    )
    assert answer.json()["gate"]["verdict"] == "worse"


def test_a_lost_shard_is_told_at_once(stack: Stack) -> None:
    run = stack.run({"tasks": ["Starter"], "limit": 8, "num_shards": 1, "cluster": "hopeless"})
    assert run.state == "failed"

    def told() -> list[str]:
        said = [one["text"] for one in stack.hook.posted]
        return [one for one in said if one.startswith("attention: ") and run.run_id in one]

    (said,) = eventually(told, "a message on the shard", 60)
    assert "Shard 1 of" in said
    assert f"/runs/{run.run_id}/shards/0/log" in said.replace("%3A", ":").replace("%2B", "+")


@pytest.mark.parametrize(
    ("conf", "says"),
    [({"gate": "nope"}, "There is no gate 'nope'"), ({"gate": "best", "tasks": []}, "tasks")],
)
def test_a_wish_that_cannot_be_met_is_refused_before_anything_is_submitted(
    stack: Stack, conf: dict[str, object], says: str
) -> None:
    run = stack.run({"tasks": ["Starter"], "cluster": "echo", **conf})
    assert run.state == "failed"
    (plan,) = [one for one in run.tasks if one["task_id"] == "plan"]
    assert says in run.log(plan)
    assert states(run)["submit_shards"] == "upstream_failed"
