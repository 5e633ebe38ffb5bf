"""Killing the processes of the Airflow under test, as a crash or a reboot would."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil
from support.stack import Stack

from nightshard.local.airflow_info import AirflowInfo
from nightshard.local.airflow_parts import leads_part, members

LOST_S = 60


def parts_of(stack: Stack) -> AirflowInfo:
    """Return the processes as they are now; a restart changes them."""
    info = AirflowInfo.read(stack.settings.state / "airflow")
    assert info is not None
    return info


def signal_part(stack: Stack, part: str, signum: int = signal.SIGKILL) -> None:
    """Signal a part; the supervisor starts another one."""
    with suppress(ProcessLookupError, KeyError):  # it may be between two lives already
        os.kill(parts_of(stack).parts[part], signum)


def kill_task(stack: Stack) -> None:
    """Kill the process in which a task's own code runs, leaving the worker that watches it."""
    _kill(_tasks(stack))


def kill_worker(stack: Stack) -> None:
    """Kill a busy worker of the LocalExecutor; its task's process loses the one that watches it."""
    _kill(task.parent() for task in _tasks(stack))


def kill_runner(stack: Stack) -> None:
    """Kill the process below the triggerer in which the triggers run."""
    triggerer = parts_of(stack).parts.get("triggerer")
    with suppress(psutil.Error):
        children = psutil.Process(triggerer).children()
        _kill(one for one in children if "serve-logs" not in " ".join(one.cmdline()))


def kill_everything(stack: Stack) -> None:
    """Kill the supervisor and every process of Airflow, as a reboot does."""
    info = parts_of(stack)
    os.kill(info.pid, signal.SIGKILL)
    while left := members(info.parts.values()):
        _kill(left)


def restart_after_everything(stack: Stack) -> None:
    """Kill every process and start Airflow as a person would."""
    kill_everything(stack)
    stack.local_airflow().up(print)


def await_parts(stack: Stack) -> None:
    """Wait until supervisor and all parts live and report so."""
    deadline = time.monotonic() + LOST_S
    while stack.local_airflow().status() is None:
        assert time.monotonic() < deadline, parts_of(stack)
        time.sleep(0.2)


def await_new(stack: Stack, part: str, old: int) -> None:
    """Wait until another process is a part than was."""
    deadline = time.monotonic() + LOST_S
    while (new := parts_of(stack).parts.get(part, old)) == old or not leads_part(new):
        assert time.monotonic() < deadline, parts_of(stack)
        time.sleep(0.1)


VICTIMS: dict[str, Callable[[Stack], None]] = {
    "scheduler": lambda stack: signal_part(stack, "scheduler"),
    "triggerer": lambda stack: signal_part(stack, "triggerer"),
    "API server": lambda stack: signal_part(stack, "api-server"),
    "DAG processor": lambda stack: signal_part(stack, "dag-processor"),
    "task": kill_task,
    "worker": kill_worker,
    "trigger runner": kill_runner,
    "everything": restart_after_everything,
}
"""What can be killed, by its name."""


def _tasks(stack: Stack) -> list[psutil.Process]:
    """Return the children of the scheduler's workers: in each runs a task's own code."""
    found = []
    scheduler = parts_of(stack).parts.get("scheduler")
    for process in members([scheduler]) if scheduler is not None else []:
        with suppress(psutil.Error):
            parent = process.parent()
            if parent is not None and "LocalExecutor" in " ".join(parent.cmdline()):
                found.append(process)
    return found


def _kill(processes: Iterable[psutil.Process | None]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            if process is not None:
                process.kill()
