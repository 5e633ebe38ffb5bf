"""Keeps the parts of a local Airflow alive: ``python -m nightshard.local.supervisor``.

Airflow's own ``standalone`` leaves a part that ended dead, and orphans its parts when it is
killed. This one starts a part again, and a new supervisor takes over the parts of a killed one.
"""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nightshard.local.airflow_info import AirflowInfo
from nightshard.local.airflow_parts import (
    LASTING_S,
    MIGRATION,
    PARTS,
    end_sessions,
    leads_part,
    marked,
    record_end,
    restart_delay,
    session_of,
    signal_all,
    spawn,
)
from nightshard.local.airflow_settings import database_file
from nightshard.local.processes import Process

LOOK_S = 0.25
SCHEDULER_GRACE_S = 10.0
"""How long running tasks may take to end when all is stopped."""
GRACE_S = 4.0


@dataclass
class Part:
    """One part and what became of it.

    Attributes:
        name: a command of ``airflow``.
        process: the leader of its session; None where none was started.
        child: the same, where this supervisor started it and has to collect it.
        started: monotonic seconds.
        failures: ends in a row that came soon after the start.
        due: monotonic seconds from which on it may be started.
    """

    name: str
    process: Process | None = None
    child: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0

    def runs(self) -> bool:
        """Say whether its leader lives; collects it if it does not."""
        if self.process is None:
            return False
        if self.child is not None and self.child.poll() is not None:
            return False
        return self.process.alive()


class Supervisor:
    """Starts the parts of an Airflow, and starts each again that ends.

    Args:
        home: ``AIRFLOW_HOME``, with an ``airflow.json`` that names address and login.
        commands: command line of each part by its name; Airflow's by default.
        say: takes a sentence for each change.
    """

    def __init__(
        self,
        home: Path,
        commands: Mapping[str, Sequence[str]] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.home = home
        self.commands = commands or {
            name: [sys.executable, "-m", "airflow", name] for name in PARTS
        }
        self.say = say
        self.parts = {name: Part(name) for name in self.commands}
        self.stop = threading.Event()

    def run(self) -> None:
        """Keep the parts alive until ``stop`` is set, then end them."""
        self.adopt()
        try:
            while not self.stop.is_set():
                self.look(time.monotonic())
                self.stop.wait(LOOK_S)
        finally:
            self.end()

    def adopt(self) -> None:
        """Take over what a supervisor that was killed has left, and clear away the rest."""
        info = AirflowInfo.read(self.home)
        for name, pid in (info.parts if info is not None else {}).items():
            part = self.parts.get(name)
            if part is not None and leads_part(pid):
                part.process, part.started = Process.of(pid), time.monotonic()
                self.say(f"{name} runs already as process {pid}")
            else:
                end_sessions([pid])
        kept = {part.process.pid for part in self.parts.values() if part.process is not None}
        strays = [one for one in marked(self.home) if session_of(one.pid) not in kept]
        signal_all(strays, signal.SIGKILL)
        for part in self.parts.values():
            if part.process is None:
                record_end(database_file(self.home), part.name)

    def look(self, now: float) -> None:
        """Start every part that does not run and whose delay is over."""
        for part in self.parts.values():
            if part.runs():
                continue
            if part.process is not None:
                self._bury(part, part.process.pid, now)
                self._publish()
            if now >= part.due:
                self._start(part, now)
                self._publish()

    def end(self) -> None:
        """End all parts: the scheduler first, while its tasks can still report how they ended."""
        scheduler = [part for part in self.parts.values() if part.name == "scheduler"]
        others = [part for part in self.parts.values() if part.name != "scheduler"]
        for parts, grace in ((scheduler, SCHEDULER_GRACE_S), (others, GRACE_S)):
            for part in parts:
                if part.process is not None:
                    part.process.send(signal.SIGTERM)
            deadline = time.monotonic() + grace
            while any(part.runs() for part in parts) and time.monotonic() < deadline:
                time.sleep(0.05)
            for part in parts:
                if part.process is not None and part.runs():
                    self.say(f"{part.name} does not end within {grace:g} s and is killed")
            end_sessions(part.process.pid for part in parts if part.process is not None)

    def _start(self, part: Part, now: float) -> None:
        try:
            part.child = spawn(self.home, part.name, self.commands[part.name])
        except OSError as error:
            part.failures += 1
            part.due = now + restart_delay(part.failures)
            self.say(f"{part.name} cannot be started now: {error}")
            return
        part.process, part.started = Process.of(part.child.pid), now
        self.say(f"{part.name} starts as process {part.child.pid}")

    def _bury(self, part: Part, pid: int, now: float) -> None:
        """Clear away what a part has left behind, and decide when to start it again."""
        end_sessions([pid])
        record_end(database_file(self.home), part.name)
        lasted = now - part.started
        part.failures = 1 if lasted >= LASTING_S else part.failures + 1
        part.due = now + restart_delay(part.failures)
        code = "" if part.child is None else f" with {part.child.poll()}"
        self.say(
            f"{part.name}, process {pid}, ended{code} after {lasted:.0f} s; "
            f"it starts again in {part.due - now:g} s"
        )
        part.process = part.child = None

    def _publish(self) -> None:
        pids = {p.name: p.process.pid for p in self.parts.values() if p.process is not None}
        note(self.home, parts=pids, failures={p.name: p.failures for p in self.parts.values()})


def note(home: Path, **changes: Any) -> None:
    """Write this process and ``changes`` to ``airflow.json``, where there is one."""
    info = AirflowInfo.read(home)
    if info is not None:
        replace(info, pid=os.getpid(), **changes).write(home)


def migrate(home: Path, stop: threading.Event) -> int:
    """Bring Airflow's database to the installed version; nothing to do where that was done.

    Returns:
        0, or the code with which the migration ended.
    """
    wanted, mark = version("apache-airflow"), home / "schema-version"
    if database_file(home).exists() and mark.exists() and mark.read_text() == wanted:
        return 0
    child = spawn(home, MIGRATION, [sys.executable, "-m", "airflow", "db", "migrate"])
    note(home, parts={MIGRATION: child.pid})
    while (code := child.poll()) is None:
        if stop.wait(0.05):
            child.kill()
    if code == 0:
        mark.write_text(wanted)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; another supervisor of the same home makes this one end at once."""
    parser = argparse.ArgumentParser(prog="nightshard.local.supervisor", description=__doc__)
    parser.add_argument("home", type=Path, help="AIRFLOW_HOME, with its airflow.json")
    home: Path = parser.parse_args(arguments).home
    supervisor = Supervisor(home, say=lambda sentence: print(_stamped(sentence), flush=True))
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: supervisor.stop.set())
    with (home / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another supervisor runs here", file=sys.stderr)
            return 1
        note(home)
        code = migrate(home, supervisor.stop)
        if code == 0:
            supervisor.run()
        return code


def _stamped(sentence: str) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}"


if __name__ == "__main__":
    sys.exit(main())
