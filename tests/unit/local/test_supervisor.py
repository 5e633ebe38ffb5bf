"""Parts of the local Airflow that end are started again, and end when all is stopped."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.local.airflow_info import AirflowInfo
from nightshard.local.airflow_parts import (
    LONGEST_DELAY_S,
    OWNER_MARK,
    command_of,
    record_end,
    restart_delay,
)
from nightshard.local.airflow_settings import database_file
from nightshard.local.processes import Process
from nightshard.local.supervisor import Supervisor

pytestmark = pytest.mark.unit

SLEEP = "while :; do sleep 0.05; done"
WITH_WORKER = f"/bin/sh -c '{SLEEP}' 'airflow worker' & {SLEEP}"


class Running:
    """A supervisor at work in a thread, over shell loops in place of Airflow's commands."""

    def __init__(self, home: Path, scripts: dict[str, str]) -> None:
        self.home = home
        self.said: list[str] = []
        commands = {name: ["/bin/sh", "-c", text, "airflow"] for name, text in scripts.items()}
        self.supervisor = Supervisor(home, commands, self.said.append)
        self.thread = threading.Thread(target=self.supervisor.run)
        self.thread.start()

    @property
    def parts(self) -> dict[str, int]:
        info = AirflowInfo.read(self.home)
        assert info is not None
        return dict(info.parts)

    def end(self) -> None:
        self.supervisor.stop.set()
        self.thread.join()


Start = Callable[[dict[str, str]], Running]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv(OWNER_MARK, str(tmp_path))
    monkeypatch.setattr("nightshard.local.supervisor.LOOK_S", 0.02)
    monkeypatch.setattr("nightshard.local.supervisor.GRACE_S", 0.5)
    monkeypatch.setattr("nightshard.local.supervisor.SCHEDULER_GRACE_S", 0.5)
    AirflowInfo("http://127.0.0.1:9", "a", "b", 0).write(tmp_path)
    begun: list[Running] = []

    def begin(scripts: dict[str, str]) -> Running:
        running = Running(tmp_path, scripts)
        begun.append(running)
        eventually(lambda: running.parts.keys() == scripts.keys())
        return running

    yield begin
    for running in begun:
        running.end()


def eventually(look: Callable[[], object], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return Process.of(pid) is not None


def workers(part: int) -> set[int]:
    """The children of a part that call themselves a worker, as the LocalExecutor's do."""
    return {
        process.pid
        for process in psutil.process_iter()
        if alive(process.pid)
        and os.getsid(process.pid) == part
        and command_of(process.pid).endswith("airflow worker")
    }


def test_a_part_that_was_killed_comes_back_and_its_sibling_stays(start: Start) -> None:
    running = start({"scheduler": SLEEP, "triggerer": SLEEP})
    before = running.parts
    os.kill(before["triggerer"], signal.SIGKILL)
    eventually(lambda: running.parts.get("triggerer") not in {None, before["triggerer"]})
    assert alive(running.parts["triggerer"])
    assert running.parts["scheduler"] == before["scheduler"]


def test_a_killed_schedulers_workers_do_not_outlive_it(start: Start) -> None:
    running = start({"scheduler": WITH_WORKER})
    scheduler = running.parts["scheduler"]
    eventually(lambda: workers(scheduler))
    (worker,) = workers(scheduler)
    os.kill(scheduler, signal.SIGKILL)
    eventually(lambda: running.parts.get("scheduler") not in {None, scheduler})
    assert not alive(worker)


def test_all_parts_end_with_the_supervisor_the_stubborn_ones_too(start: Start) -> None:
    running = start({"scheduler": WITH_WORKER, "triggerer": f"trap '' TERM; {SLEEP}"})
    eventually(lambda: workers(running.parts["scheduler"]))
    pids = {*running.parts.values(), *workers(running.parts["scheduler"])}
    running.end()
    assert not {pid for pid in pids if alive(pid)}


def test_a_part_that_ends_at_once_is_tried_ever_more_seldom(start: Start) -> None:
    running = start({"scheduler": SLEEP, "triggerer": "exit 3"})
    eventually(lambda: sum("ended with 3" in sentence for sentence in running.said) == 3)
    delays = [one.rpartition("in ")[2] for one in running.said if "ended with 3" in one]
    assert delays == ["0 s", "1 s", "2 s"]
    info = AirflowInfo.read(running.home)
    assert info is not None
    assert info.failures["triggerer"] == 3


def test_a_new_supervisor_takes_over_the_parts_of_one_that_was_killed(
    start: Start, tmp_path: Path
) -> None:
    left = subprocess.Popen(["/bin/sh", "-c", SLEEP, "airflow"], start_new_session=True)
    lost = subprocess.Popen(["/bin/sh", "-c", WITH_WORKER, "airflow"], start_new_session=True)
    try:
        eventually(lambda: workers(lost.pid))
        orphans = workers(lost.pid)
        lost.kill()
        lost.wait()
        parts = {"scheduler": lost.pid, "triggerer": left.pid}
        AirflowInfo("http://127.0.0.1:9", "a", "b", 0, parts).write(tmp_path)
        running = start({"scheduler": SLEEP, "triggerer": SLEEP})
        eventually(lambda: running.parts["scheduler"] != lost.pid)
        assert running.parts["triggerer"] == left.pid
        assert not {pid for pid in orphans if alive(pid)}
    finally:
        left.kill()
        left.wait()


def test_a_part_left_unlisted_is_not_started_beside_itself(start: Start, tmp_path: Path) -> None:
    stray = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    start({"scheduler": SLEEP})
    assert stray.wait(timeout=10) == -signal.SIGKILL


def test_airflow_is_told_that_a_killed_part_has_ended(start: Start, tmp_path: Path) -> None:
    with sqlite3.connect(database_file(tmp_path)) as connection:
        connection.execute("CREATE TABLE job (job_type TEXT, state TEXT, end_date TEXT)")
    running = start({"scheduler": SLEEP, "triggerer": SLEEP})
    with sqlite3.connect(database_file(tmp_path)) as connection:
        for kind in ("SchedulerJob", "TriggererJob"):
            connection.execute("INSERT INTO job VALUES (?, 'running', NULL)", (kind,))
    before = running.parts["triggerer"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: running.parts.get("triggerer") not in {None, before})
    with sqlite3.connect(database_file(tmp_path)) as connection:
        rows = connection.execute("SELECT job_type, state, end_date IS NULL FROM job").fetchall()
    assert set(rows) == {("SchedulerJob", "running", 1), ("TriggererJob", "failed", 0)}


def test_a_database_that_cannot_be_written_does_not_stop_the_restart(tmp_path: Path) -> None:
    file = database_file(tmp_path)
    file.write_bytes(b"no database at all, and long enough to be read as the header of one" * 20)
    record_end(file, "scheduler")
    assert file.read_bytes().startswith(b"no database")


@given(st.integers(min_value=1, max_value=1000))
def test_delays_grow_up_to_a_bound(failures: int) -> None:
    assert 0 <= restart_delay(failures) <= restart_delay(failures + 1) <= LONGEST_DELAY_S
