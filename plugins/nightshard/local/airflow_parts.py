"""The processes that a local Airflow consists of: what they are, how they are found and ended."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

OWNER_MARK = "NIGHTSHARD_LOCAL_AIRFLOW"
"""Variable by which our processes are found again; nobody's own shell carries it."""

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
"""Airflow's commands that run for ever; the scheduler has the LocalExecutor's workers below it."""

MIGRATION = "db-migrate"
"""Name under which the migration of the database, which ends by itself, is listed and logged."""

JOB_TYPES = {
    "scheduler": "SchedulerJob",
    "dag-processor": "DagProcessorJob",
    "triggerer": "TriggererJob",
}
"""Which rows of Airflow's table ``job`` belong to a part; the API server has none."""

LASTING_S = 30.0
"""A part that lived this long had begun well: its next end starts the delays anew."""

LONGEST_DELAY_S = 30.0


def output_file(home: Path, name: str) -> Path:
    """Return the file with what a part prints; Airflow's own ``logs`` are those of the tasks."""
    return home / "output" / f"{name}.log"


def spawn(
    home: Path, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, its output appended to a file of its own.

    Args:
        home: ``AIRFLOW_HOME``.
        name: of the part.
        command: its command line.
        environment: all of its variables; by default those of this process.
    """
    output = output_file(home, name)
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as stream:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def restart_delay(failures: int) -> float:
    """Return how many seconds a part waits that ended ``failures`` times soon after its start.

    The first restart is immediate: a part that was killed once should be back at once.
    """
    return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), LONGEST_DELAY_S)


def leads_part(pid: int) -> bool:
    """Say whether a process is a part of an Airflow, and not one that got its number later."""
    return session_of(pid) == pid and "airflow" in command_of(pid)


def session_of(pid: int) -> int | None:
    """Return a process's session, None where there is no such process."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def command_of(pid: int) -> str:
    """Return a process's command line, or the title it gave itself; empty where it has ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def owner_of(pid: int) -> str | None:
    """Return the home folder that a process carries as its mark; None after it renamed itself."""
    try:
        return psutil.Process(pid).environ().get(OWNER_MARK)
    except psutil.Error:
        return None


def members(sessions: Iterable[int]) -> list[psutil.Process]:
    """Find Airflow's processes of some sessions.

    A worker of the LocalExecutor renames itself, which overwrites its environment, and outlives a
    scheduler that was killed; its session stays. What a task started keeps its environment.
    """
    wanted = {*sessions} - {os.getsid(0)}
    return [
        process
        for process in psutil.process_iter()
        if session_of(process.pid) in wanted
        and ("airflow" in command_of(process.pid) or owner_of(process.pid) is not None)
    ]


def marked(home: Path) -> list[psutil.Process]:
    """Find the processes that carry the mark of a home folder, this one left out."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and owner_of(process.pid) == str(home)
    ]


def signal_all(processes: Iterable[psutil.Process], signum: int) -> None:
    """Send a signal to those that still run."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signum)


def end_sessions(sessions: Iterable[int], timeout_s: float = 5.0) -> None:
    """Kill what is left in the sessions of parts that have ended, and wait until it is gone."""
    deadline = time.monotonic() + timeout_s
    while (left := members(sessions)) and time.monotonic() < deadline:
        signal_all(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=0.5)


def record_end(database: Path, part: str) -> None:
    """Tell Airflow that no process of a part runs any more, so that it need not find out.

    Without this it waits for half a minute of silence before it runs a dead scheduler's tasks and
    a dead triggerer's triggers again. Where the database cannot be written now, it does just that.
    """
    job_type = JOB_TYPES.get(part)
    if job_type is None or not database.exists():
        return
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(database, timeout=5)) as connection,
        connection,
    ):
        connection.execute(
            "UPDATE job SET state = 'failed', end_date = ? "
            "WHERE job_type = ? AND state = 'running'",
            (now, job_type),
        )
