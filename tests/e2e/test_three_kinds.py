"""Mathematics, choice, code and a task of lm-eval in one run, each judged in its own way."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.stack import THREE_KINDS_ANSWER, FinishedRun, Stack, eventually

from nightshard.benchmarks import registry

pytestmark = pytest.mark.e2e

HARNESS = "lm-eval:nightshard_sums"
MATH = [{"problem": "Which letter follows A?", "answer": "B"}, {"problem": "1+1?", "answer": "2"}]
CHOICE = [
    {
        "Record ID": f"rec{number}",
        "Question": f"Which is number {number}?",
        "Correct Answer": f"right {number}",
        **{f"Incorrect Answer {wrong}": f"wrong {wrong}" for wrong in (1, 2, 3)},
        "High-level domain": "Physics",
    }
    for number in range(8)
]
CODE = [
    {
        "question_id": name,
        "question_content": f"Read two numbers and print their {name}.",
        "difficulty": difficulty,
        "starter_code": "",
        "metadata": "{}",
        "public_test_cases": json.dumps([{"input": "2 2\n", "output": "4\n"}]),
        "private_test_cases": json.dumps([{"input": "3 5\n", "output": f"{result}\n"}]),
    }
    for name, difficulty, result in (("sum", "easy", 8), ("product", "hard", 15))
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("questions")
    files: dict[str, list[dict[str, Any]]] = {
        "MATH500": MATH,
        "GPQADiamond": CHOICE,
        "LiveCodeBench": CODE,
    }
    found = {}
    for name, rows in files.items():
        path: Path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[name] = str(path)
    return found


def asked(stack: Stack, sources: dict[str, str], cluster: str) -> FinishedRun:
    """Every question gets the same answer: a program, the letter B in a box, the number 3."""
    finished = stack.run(
        {
            "tasks": [*sources, HARNESS],
            "source": sources,
            "repeats": 2,
            "num_shards": 2,
            "cluster": cluster,
        }
    )
    assert finished.state == "success", [
        finished.log(task) for task in finished.tasks if task["state"] == "failed"
    ]
    return finished


@pytest.fixture(scope="module")
def run(stack: Stack, sources: dict[str, str]) -> FinishedRun:
    return asked(stack, sources, "three-kinds")


def test_each_kind_is_judged_by_its_own_judge(
    run: FinishedRun, sources: dict[str, str], stack: Stack
) -> None:
    problems = registry.get("GPQADiamond").load(sources["GPQADiamond"])
    chosen = sum(problem.gold == "B" for problem in problems) / len(problems)
    scores = {one["benchmark"]: one["accuracy"] for one in run.summary()["scores"]}
    assert "B" in THREE_KINDS_ANSWER
    assert scores == {
        "MATH500": 0.5,
        "GPQADiamond": chosen,
        "LiveCodeBench": 0.5,
        HARNESS: 0.25,
    }


def test_a_job_on_the_cluster_judges_alike_where_the_profile_says_so(
    run: FinishedRun, sources: dict[str, str], stack: Stack
) -> None:
    there = asked(stack, sources, "judges-there")
    assert there.summary()["scores"] == run.summary()["scores"]
    (score,) = (task for task in there.tasks if task["task_id"] == "score")
    assert re.search(r"Slurm job \d+_0 of cluster judges-there judges", there.log(score))


def test_difficulties_and_repeats_are_told_too(run: FinishedRun, stack: Stack) -> None:
    shown = stack.cli("results", "--run", run.summary()["run_key"], "--json")
    rows = json.loads(shown.stdout)
    values = {(one["benchmark"], one["subset"], one["metric"]): one["value"] for one in rows}
    assert values["LiveCodeBench", "easy", "accuracy"] == 1.0
    assert values["LiveCodeBench", "hard", "accuracy"] == 0.0
    assert values["LiveCodeBench", "", "pass@2"] == 0.5
    assert values["MATH500", "", "maj@2"] == 0.5


def test_judging_again_and_comparing_with_itself_change_nothing(
    run: FinishedRun, stack: Stack
) -> None:
    key = run.summary()["run_key"]
    again = stack.cli("rescore", key)
    assert "32 answers judged, all as before." in again.stdout, again.stderr
    compared = json.loads(stack.cli("compare", key, key, "--json").stdout)
    assert {one["verdict"] for one in compared} == {"cannot tell"}


def test_the_dag_rescore_judges_a_run_without_a_cluster(run: FinishedRun, stack: Stack) -> None:
    login = {"username": stack.airflow.username, "password": stack.airflow.password}
    token = httpx.post(f"{stack.airflow.url}/auth/token", json=login).json()["access_token"]
    key = run.summary()["run_key"]
    with httpx.Client(
        base_url=f"{stack.airflow.url}/api/v2/dags/rescore",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as client:
        asked = {"logical_date": None, "conf": {"runs": [key]}}
        run_id = client.post("/dagRuns", json=asked).raise_for_status().json()["dag_run_id"]

        def ended() -> str | None:
            state = str(client.get(f"/dagRuns/{run_id}").json()["state"])
            return state if state in {"success", "failed"} else None

        assert eventually(ended, "the end of rescore") == "success"
        told = client.get(
            f"/dagRuns/{run_id}/taskInstances/rescore_run/xcomEntries/return_value",
            params={"map_index": 0, "deserialize": True},
        ).json()["value"]
    assert (told["run_key"], told["judged"], told["changed"]) == (key, 32, 0)
