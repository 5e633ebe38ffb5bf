"""The scripts that start the containers, run as plain processes in a folder of their own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.fixtures.clusters import connect, run

from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.info import ClusterInfo
from nightshard.local.processes import descendants, free_port, identify, wait_until

pytestmark = pytest.mark.integration

COMPOSE = PROJECT_ROOT / "include" / "compose"


@pytest.fixture
def container(tmp_path: Path) -> dict[str, str]:
    """The environment that the images set, with folders of this test."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NIGHTSHARD_HOME": str(PROJECT_ROOT),
        "NIGHTSHARD_STATE": str(tmp_path / "state"),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


@pytest.fixture
def slurm_container(container: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [COMPOSE / "slurm-entrypoint.sh"],
        env={
            **container,
            "NIGHTSHARD_SSH_BIND": "0.0.0.0",
            "NIGHTSHARD_SSH_HOST": "localhost",
            "NIGHTSHARD_SSH_PORT": str(free_port()),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("cluster of 4 nodes is up; ssh ")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def healthy(container: dict[str, str], service: str) -> bool:
    check = [COMPOSE / "healthcheck.sh", service]
    done = subprocess.run(check, env=container, capture_output=True, check=False)
    return done.returncode == 0


async def test_the_slurm_container_serves_jobs_to_the_airflow_containers_and_stops_cleanly(
    container: dict[str, str], slurm_container: subprocess.Popen[str]
) -> None:
    assert healthy(container, "slurm")
    # What an Airflow service finds in its environment, by its own entry script.
    shown = subprocess.run(  # noqa: ASYNC221 - nothing else waits for this loop
        [COMPOSE / "airflow-entrypoint.sh", "printenv", "AIRFLOW_CONN_NIGHTSHARD_LOCAL"],
        env=container,
        check=True,
        capture_output=True,
        text=True,
    )
    connection = json.loads(shown.stdout)
    root = Path(container["NIGHTSHARD_STATE"]) / "local-cluster"
    info = ClusterInfo.from_json((root / "cluster.json").read_text())
    assert connection == info.airflow_connection()
    assert connection["host"] == "localhost"
    async with connect(info) as client:
        assert await run(client, "srun --gres=gpu:1 echo works") == "works"
    family = identify(descendants(info.pids.values()))

    slurm_container.send_signal(signal.SIGTERM)

    assert slurm_container.wait(60) == 0
    assert [process for process in family if process.alive()] == []
    assert not healthy(container, "slurm")


def test_the_slurm_container_is_unhealthy_while_a_node_is_gone(
    container: dict[str, str], slurm_container: subprocess.Popen[str]
) -> None:
    root = Path(container["NIGHTSHARD_STATE"]) / "local-cluster"
    info = ClusterInfo.from_json((root / "cluster.json").read_text())
    # Stopped, so that the repair of the container itself does not come first.
    slurm_container.send_signal(signal.SIGSTOP)
    os.kill(info.pids["node4"], signal.SIGKILL)
    try:
        wait_until(lambda: not healthy(container, "slurm"), what="check", timeout=10)
    finally:
        slurm_container.send_signal(signal.SIGCONT)
    wait_until(lambda: healthy(container, "slurm"), what="repair", timeout=30)


def test_the_slurm_container_says_in_a_sentence_why_it_cannot_start(
    container: dict[str, str],
) -> None:
    script = [COMPOSE / "slurm-entrypoint.sh"]
    done = subprocess.run(script, env=container, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "set the port of sshd" in done.stderr


def test_the_init_container_makes_both_databases_and_may_run_again(
    container: dict[str, str], tmp_path: Path
) -> None:
    container |= {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "NIGHTSHARD_DB_URL": f"sqlite:///{tmp_path}/nightshard.db",
    }
    for _ in range(2):
        done = subprocess.run(
            [COMPOSE / "airflow-entrypoint.sh", "init"],
            env=container,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    for name, table in (("airflow", "dag_run"), ("nightshard", "runs")):
        with sqlite3.connect(tmp_path / f"{name}.db") as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            assert table in {row[0] for row in rows}
        database.close()


def test_the_page_gets_its_password_by_file_and_drops_it_from_the_environment(
    container: dict[str, str], tmp_path: Path
) -> None:
    # A stand-in for the server, which would take a minute; the end-to-end tests run the real one.
    stand_in = tmp_path / "bin" / "airflow"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$@"\nenv\n')
    stand_in.chmod(0o755)
    home = Path(container["AIRFLOW_HOME"])
    home.mkdir()
    container["PATH"] = f"{stand_in.parent}:{container['PATH']}"
    secret = 'quo"te and $HOME'
    done = subprocess.run(
        [COMPOSE / "airflow-entrypoint.sh", "api-server"],
        env={**container, "AIRFLOW_ADMIN_PASSWORD": secret},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("api-server\n")
    assert secret not in done.stdout
    passwords = home / "passwords.json"
    assert f"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE={passwords}\n" in done.stdout
    assert json.loads(passwords.read_text()) == {"admin": secret}
    assert passwords.stat().st_mode & 0o077 == 0
