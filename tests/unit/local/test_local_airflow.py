"""The local Airflow's processes are found and stopped, and nobody else's."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshard.local.airflow import LocalAirflow
from nightshard.local.airflow_info import AirflowInfo
from nightshard.local.airflow_parts import OWNER_MARK
from nightshard.local.airflow_settings import foreign_settings_removed
from nightshard.local.processes import Process

pytestmark = pytest.mark.unit

URL = "http://127.0.0.1:9"

# A parent as a scheduler is one: its child drops the environment and takes another name.
FAMILY = """
import os, subprocess, sys
child = subprocess.Popen(["/bin/sh", "-c", sys.argv[1], "airflow worker"], env={})
print(child.pid, flush=True)
child.wait()
"""
SLEEP = "while :; do sleep 0.05; done"
STUBBORN = f"trap '' TERM; {SLEEP}"


class Family:
    """A parent that carries the mark and a child that does not."""

    def __init__(self, home: Path, child: str = SLEEP) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-c", FAMILY, child],
            env={OWNER_MARK: str(home)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.parent.stdout is not None
        self.child = int(self.parent.stdout.readline())

    def alive(self) -> set[int]:
        """Ids of those that run; one that ended and was not yet collected does not."""
        return {pid for pid in (self.parent.pid, self.child) if Process.of(pid) is not None}

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)

    def end(self) -> None:
        for pid in self.alive():
            os.kill(pid, 9)
        self.parent.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "my airflow"
    folder.mkdir()
    return folder


@pytest.fixture
def family(home: Path) -> Iterator[Family]:
    family = Family(home)
    yield family
    family.end()


def local(home: Path) -> LocalAirflow:
    return LocalAirflow(home, home, {})


def test_down_stops_a_renamed_child_too(family: Family, home: Path) -> None:
    local(home).down()
    assert family.alive() == set()


def test_down_finds_the_children_of_a_part_that_was_killed(family: Family, home: Path) -> None:
    AirflowInfo(URL, "a", "b", 0, {"scheduler": family.parent.pid}).write(home)
    family.parent.kill()
    family.parent.wait()
    assert family.alive() == {family.child}
    local(home).down()
    assert family.alive() == set()
    assert not (home / "airflow.json").exists()


def test_down_kills_what_does_not_listen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightshard.local.airflow.STOP_TIMEOUT_S", 0.5)
    family = Family(home, STUBBORN)
    try:
        local(home).down()
        family.wait()  # a loaded machine takes a moment to end what was killed
        assert family.alive() == set()
    finally:
        family.end()


def test_down_leaves_another_folders_airflow_alone(family: Family, tmp_path: Path) -> None:
    local(tmp_path / "other").down()
    assert family.alive() == {family.parent.pid, family.child}


def test_an_airflow_whose_process_is_gone_does_not_run(home: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    AirflowInfo(URL, "a", "b", ended.pid).write(home)
    assert local(home).status() is None


def test_only_the_owner_can_read_address_and_login(home: Path) -> None:
    AirflowInfo(URL, "a", "b", 0).write(home)
    assert stat.S_IMODE((home / "airflow.json").stat().st_mode) == 0o600


def test_the_settings_of_another_airflow_do_not_reach_the_local_one() -> None:
    environ = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://production",
        "AIRFLOW_CONFIG": "/etc/airflow.cfg",
        "AIRFLOW_CONN_SITE": "ssh://site",
        "HOME": "/home/me",
    }
    kept = {"AIRFLOW_CONN_SITE": "ssh://site", "HOME": "/home/me"}
    assert foreign_settings_removed(environ) == kept
