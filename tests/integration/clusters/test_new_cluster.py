"""`nightshard cluster new` on a real login node, and the doctor content with what it wrote."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.info import ClusterInfo

pytestmark = pytest.mark.integration


@pytest.fixture
def shell(local_cluster: ClusterInfo, tmp_path: Path) -> dict[str, str]:
    """The environment of a person whose own ssh reaches the login node as `mine`."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(
        f"Host mine {local_cluster.ssh_host}\n"
        f"  HostName {local_cluster.ssh_host}\n"
        f"  Port {local_cluster.ssh_port}\n"
        f"  User {local_cluster.ssh_user}\n"
        f"  IdentityFile {local_cluster.ssh_key}\n"
    )
    (home / ".ssh" / "known_hosts").write_bytes(local_cluster.known_hosts.read_bytes())
    project = tmp_path / "project"
    project.mkdir()
    for name in ("include", "shard_worker", "plugins"):
        (project / name).symlink_to(PROJECT_ROOT / name)
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    return {
        **os.environ,
        "HOME": str(home),
        "NIGHTSHARD_HOME": str(project),
        "NIGHTSHARD_CLUSTERS": str(clusters),
        "NIGHTSHARD_STATE": str(tmp_path / "state"),
    }


def nightshard(shell: dict[str, str], *arguments: str, typed: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [Path(sys.executable).parent / "nightshard", *arguments],
        env=shell,
        check=False,
        capture_output=True,
        text=True,
        input=typed,
    )
    return done.returncode, done.stdout + done.stderr


def reach(info: ClusterInfo) -> str:
    return f"{info.ssh_user}@{info.ssh_host}:{info.ssh_port}"


def test_a_cluster_is_added_and_the_doctor_is_content(
    shell: dict[str, str], local_cluster: ClusterInfo, worker_env: Path
) -> None:
    shared = local_cluster.shared / "mine"
    (shared / "models").mkdir(parents=True)
    where = [
        *("--workdir", f"{shared}/nightshard"),
        *("--python", f"{worker_env}/bin/python"),
        *("--models", f"{shared}/models"),
    ]
    code, said = nightshard(
        shell, "cluster", "new", "mine", "--ssh", reach(local_cluster), "--yes", *where
    )
    assert code == 0, said
    assert "main: 4 nodes of 2 GPUs, shared" in said
    assert "airflow connections add nightshard_mine" in said
    profile = yaml.safe_load((Path(shell["NIGHTSHARD_CLUSTERS"]) / "mine.yaml").read_text())
    assert profile["slurm"] == {
        "partition": "main",
        "gres": "gpu:1",
        "cpus_per_task": 4,
        "mem": "3600M",
        "max_array_size": 1001,
        "accounting": "no",
    }
    assert profile["limits"]["max_job_hours"] == 24.0
    page = Path(shell["NIGHTSHARD_HOME"]) / "docs" / "clusters" / "mine.md"
    assert "| partition | main |" in page.read_text()
    assert nightshard(shell, "cluster", "guide", "--check")[0] == 0

    code, said = nightshard(shell, "doctor", "--cluster", "mine", "--ssh", reach(local_cluster))
    assert code == 0, said
    assert said.count("ok  ") == 20
    assert "ok   job: job" in said

    again = nightshard(shell, "cluster", "new", "mine", "--ssh", reach(local_cluster), "--yes")
    assert again[0] == 1
    assert "is there already" in again[1]


def test_what_slurm_does_not_know_is_asked(
    shell: dict[str, str], local_cluster: ClusterInfo
) -> None:
    typed = "\n".join(["hi", "/work/shared/ns", "/work/env/bin/python", "/work/models", ""])
    code, said = nightshard(
        shell, "cluster", "new", "asked", "--ssh", reach(local_cluster), typed=typed
    )
    assert code == 0, said
    profile = yaml.safe_load((Path(shell["NIGHTSHARD_CLUSTERS"]) / "asked.yaml").read_text())
    assert profile["slurm"]["partition"] == "hi"
    assert profile["workdir"] == "/work/shared/ns"
    assert profile["models"]["dir"] == "/work/models"


def test_a_name_of_ones_own_ssh_config_is_enough(
    shell: dict[str, str], local_cluster: ClusterInfo
) -> None:
    code, said = nightshard(shell, "cluster", "new", "by-name", "--ssh", "mine", "--yes")
    assert code == 0, said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cluster", "new", "Bad Name", "--ssh", "x", "--yes"), "is no name; use lower-case"),
        (("cluster", "new", "a", "--ssh", "not a host", "--yes"), "is no login node; give"),
        (("cluster", "new", "a", "--yes"), "Give --ssh USER@HOST"),
        (("doctor", "--cluster", "nowhere"), "There is no cluster 'nowhere'"),
        (("cluster", "new", "a", "--ssh", "me@127.0.0.1:1", "--yes"), "127.0.0.1 port 1"),
    ],
)
def test_what_cannot_be_done_gets_one_sentence(
    shell: dict[str, str], arguments: tuple[str, ...], sentence: str
) -> None:
    code, said = nightshard(shell, *arguments)
    assert code == 1
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
    assert "Traceback" not in said
