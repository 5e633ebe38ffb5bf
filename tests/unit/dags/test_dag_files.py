"""Every DAG file parses, is documented, and imports nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

DAG_FILES = sorted((PROJECT_ROOT / "dags").glob("*.py"))
HEAVY = {"datasets", "pandas", "pyarrow", "math_verify", "sympy", "numpy", "asyncssh", "paramiko"}

LOOK = """
import importlib.util, json, sys
import airflow.sdk, pydantic, airflow.triggers.base
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("dag_under_test", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from airflow.sdk import DAG
dags = [value for value in vars(module).values() if isinstance(value, DAG)]
print(json.dumps({
    "new": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
    "dags": [{
        "id": dag.dag_id, "doc": dag.doc_md, "tags": sorted(dag.tags),
        "owners": sorted({task.owner for task in dag.tasks}),
        "retries": sorted({task.retries for task in dag.tasks}),
        "tasks": [task.task_id for task in dag.topological_sort()],
    } for dag in dags],
}))
"""


@pytest.fixture(scope="module", params=DAG_FILES, ids=lambda file: file.stem)
def parsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    """What a fresh interpreter finds in a DAG file."""
    home = tmp_path_factory.mktemp("airflow")
    answer = subprocess.run(
        [sys.executable, "-c", LOOK, str(request.param)],
        env={"AIRFLOW_HOME": str(home), "PATH": "/usr/bin", "NIGHTSHARD_STATE": str(home)},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, object] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_it_imports_nothing_heavy(parsed: dict) -> None:  # type: ignore[type-arg]
    assert HEAVY.isdisjoint(parsed["new"])


def test_it_is_documented_owned_and_retried(parsed: dict) -> None:  # type: ignore[type-arg]
    assert parsed["dags"]
    for dag in parsed["dags"]:
        assert dag["doc"]
        assert "nightshard" in dag["tags"]
        assert dag["owners"] == ["nightshard"]
        assert min(dag["retries"]) >= 1


@pytest.mark.parametrize("parsed", [PROJECT_ROOT / "dags" / "rescore.py"], indirect=True)
def test_rescore_judges_each_run_in_a_task_of_its_own(parsed: dict) -> None:  # type: ignore[type-arg]
    (rescore,) = parsed["dags"]
    assert (rescore["id"], rescore["tasks"]) == ("rescore", ["runs", "rescore_run"])


@pytest.mark.parametrize("parsed", [PROJECT_ROOT / "dags" / "evaluate.py"], indirect=True)
def test_evaluate_takes_its_steps_in_order(parsed: dict) -> None:  # type: ignore[type-arg]
    (evaluate,) = parsed["dags"]
    assert evaluate["id"] == "evaluate"
    assert evaluate["tasks"] == [
        "plan",
        "prepare_dataset",
        "stage",
        "submit_shards",
        "shard",
        "collect",
        "merge",
        "score",
        "record",
        "gate",
        "publish",
    ]


def test_evaluate_tells_people_only_where_a_group_says_whom(tmp_path: Path) -> None:
    wishes = tmp_path / "notifications.yaml"
    wishes.write_text("[]")
    answer = subprocess.run(
        [sys.executable, "-c", LOOK, str(PROJECT_ROOT / "dags" / "evaluate.py")],
        env={
            "AIRFLOW_HOME": str(tmp_path),
            "PATH": "/usr/bin",
            "NIGHTSHARD_STATE": str(tmp_path),
            "NIGHTSHARD_NOTIFICATIONS": str(wishes),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    (evaluate,) = json.loads(answer.stdout.splitlines()[-1])["dags"]
    assert evaluate["tasks"][-3:] == ["gate", "publish", "notify"]
