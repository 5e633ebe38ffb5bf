"""What Airflow is asked about runs, and what is done with its answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nightshard.clusters.documents import RunIdentity
from nightshard.clusters.errors import TransportError
from nightshard.clusters.reconcile import RunNow
from nightshard.clusters.transport import CommandResult
from nightshard.core.settings import PROJECT_ROOT
from nightshard.orchestration.steps import reconciling

pytestmark = pytest.mark.unit


def identity(number: int, dag_id: str = "evaluate") -> RunIdentity:
    return RunIdentity(deployment="d1", dag_id=dag_id, dag_run_id=f"manual__{number}")


class Airflow:
    """A task's ``ti`` with runs in memory, strict about what would mean all runs."""

    def __init__(self, runs: dict[str, str], shards: dict[str, dict[str, str | None]]) -> None:
        self.runs = runs
        self.shards = shards
        self.asked_states = 0

    def get_dr_count(
        self, dag_id: str, *, run_ids: Sequence[str], states: Sequence[str] | None = None
    ) -> int:
        assert run_ids
        found = [self.runs[one] for one in run_ids if one in self.runs]
        return sum(states is None or state in states for state in found)

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        self.asked_states += 1
        return self.runs[run_id]

    def get_task_states(
        self, dag_id: str, *, task_ids: Sequence[str], run_ids: Sequence[str]
    ) -> dict[str, dict[str, str | None]]:
        assert run_ids
        assert task_ids == ["shard"]
        return {one: self.shards[one] for one in run_ids if one in self.shards}


def test_a_run_is_told_with_the_states_of_its_shards_by_rank() -> None:
    airflow = Airflow({"manual__1": "running"}, {"manual__1": {"shard_0": None, "shard_11": "x"}})
    found = reconciling.ask_airflow(airflow)({"a": identity(1), "b": identity(2)}, {"b"})
    assert found == {
        "a": RunNow("running", {0: None, 11: "x"}),
        "b": RunNow(None, {}),
    }


def test_a_shard_that_was_never_mapped_has_no_state() -> None:
    airflow = Airflow({"manual__1": "failed"}, {"manual__1": {"shard": "upstream_failed"}})
    found = reconciling.ask_airflow(airflow)({"a": identity(1)}, {"a"})
    assert found == {"a": RunNow("failed", {})}


def test_runs_of_the_past_without_jobs_are_not_asked_for_one_by_one() -> None:
    runs = {f"k{number:03}": identity(number) for number in range(500)}
    airflow = Airflow({one.dag_run_id: "success" for one in runs.values()}, {})
    found = reconciling.ask_airflow(airflow)(runs, {"k007"})
    assert list(found) == ["k007"]
    assert airflow.asked_states == 1


def test_no_runs_ask_nothing() -> None:
    assert reconciling.ask_airflow(Airflow({}, {}))({}, set()) == {}


class Cluster:
    """A transport to a login node that lists one old array of one run."""

    def __init__(self, fate: str = "") -> None:
        self.fate = fate
        self.cancelled: list[str] = []
        self.manifests = ""

    async def __aenter__(self) -> "Cluster":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def run(self, command: list[str], *, stdin: str = "", **_: Any) -> CommandResult:
        if self.fate:
            raise TransportError(self.fate)
        if command[0] == "scancel":
            self.cancelled += command[1:]
            return CommandResult("", "", 0)
        if command[0] == "squeue":
            rows = [f"57_{at}|57|{at}|57|RUNNING|None|n|N/A|1:00|ns-k1-a1" for at in range(3)]
            return CommandResult("\n".join(rows), "", 0)
        if command[0] == "find":
            return CommandResult(self.manifests, "", 0)
        nonce = stdin.partition("@%s %s\\n' ")[2].partition(" ")[0]
        files = {
            "run": identity(1).model_dump(),
            "submission-a1": {"name": "ns-k1-a1", "tasks": 4, "job_id": "57"},
        }
        lines = [f"./k1/{name}.json:{json.dumps(value)}" for name, value in files.items()]
        rows = [f"57_{at}|RUNNING|1:00:00|0|ns-k1-a1|" for at in range(3)]
        sections = ["clock \nas of 3600", "squeue \n" + "\n".join(rows), "status 0\n"]
        sections += ["files\n" + "\n".join(lines), "end\n"]
        return CommandResult("".join(f"\n@{nonce} {one}\n" for one in sections), "", 0)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    monkeypatch.setenv("NIGHTSHARD_CLUSTERS", str(PROJECT_ROOT / "include" / "clusters"))
    monkeypatch.setenv("NIGHTSHARD_STATE", str(tmp_path))
    found = Cluster()
    monkeypatch.setattr(reconciling, "open_transport", lambda _: found)
    return found


def test_what_is_left_behind_is_cancelled_and_told(cluster: Cluster) -> None:
    shards = {
        "shard_0": "failed",
        "shard_1": "deferred",
        "shard_2": "failed",
        "shard_3": "deferred",
    }
    airflow = Airflow({"manual__1": "running"}, {"manual__1": shards})
    found = reconciling.reconcile_cluster("local", "d1", reconciling.ask_airflow(airflow))
    assert cluster.cancelled == ["57_0", "57_2"] == found["cancelled"]
    assert found["jobless"] == [{"run_key": "k1", "rank": 3}]
    assert found["sentences"][0] == (
        "Cancelled 57_[0,2] (ns-k1-a1): the task of its shard has ended (failed)."
    )
    assert "shard 4: Slurm no longer lists its job 57_3" in found["sentences"][1]


def test_a_shard_that_ended_well_needs_no_job(cluster: Cluster) -> None:
    cluster.manifests = "/work/runs/k1/outputs/shard-00003-of-00004.manifest.json\n"
    shards: dict[str, str | None] = {f"shard_{at}": "deferred" for at in range(4)}
    airflow = Airflow({"manual__1": "running"}, {"manual__1": shards})
    found = reconciling.reconcile_cluster("local", "d1", reconciling.ask_airflow(airflow))
    assert found["jobless"] == []
    assert found["sentences"][0].startswith("Nothing was left behind")


def test_a_shard_that_is_cleared_between_two_looks_keeps_its_job(cluster: Cluster) -> None:
    airflow = Airflow({"manual__1": "failed"}, {"manual__1": dict.fromkeys(["shard_0"], "failed")})
    ask = reconciling.ask_airflow(airflow)
    looks = iter(
        [{"shard_0": "failed", "shard_1": "failed"}, {"shard_0": None, "shard_1": "failed"}]
    )

    def changing(*arguments: Any) -> dict[str, RunNow]:
        airflow.shards["manual__1"] = next(looks)
        return ask(*arguments)

    found = reconciling.reconcile_cluster("local", "d1", changing)
    assert cluster.cancelled == ["57_1", "57_2"] == found["cancelled"]


def test_a_healthy_run_and_another_installations_are_told_as_nothing(cluster: Cluster) -> None:
    airflow = Airflow(
        {"manual__1": "running"}, {"manual__1": {f"shard_{at}": "deferred" for at in range(3)}}
    )
    for deployment in ("d1", "d2"):
        found = reconciling.reconcile_cluster("local", deployment, reconciling.ask_airflow(airflow))
        assert found["cancelled"] == found["jobless"] == cluster.cancelled == []
        assert found["sentences"][0].startswith("Nothing was left behind: 3 jobs")


def test_profiles_that_share_an_account_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHARD_CLUSTERS", str(tmp_path))
    local = (PROJECT_ROOT / "include" / "clusters" / "local.yaml").read_text()
    for name in ("b", "a"):
        (tmp_path / f"{name}.yaml").write_text(local.replace("name: local", f"name: {name}"))
    other = local.replace("name: local", "name: c").replace("ssh_conn_id: ", "ssh_conn_id: other_")
    (tmp_path / "c.yaml").write_text(other)
    (tmp_path / "d.yaml").write_text("name: [")
    assert reconciling.distinct_clusters(lambda _: True) == ["a", "c", "d"]
    # A cluster that nobody has connected is not looked at; a broken profile says why it is not.
    assert reconciling.distinct_clusters(lambda _: False) == ["d"]
