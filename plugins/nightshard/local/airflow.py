"""Airflow on this machine, in a folder of its own; a supervisor keeps its parts alive."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil

from nightshard.core.errors import UserError
from nightshard.local.airflow_info import AirflowInfo, info_file, write_private
from nightshard.local.airflow_parts import (
    MIGRATION,
    PARTS,
    leads_part,
    marked,
    members,
    output_file,
    owner_of,
    session_of,
    signal_all,
    spawn,
)
from nightshard.local.airflow_settings import (
    DATABASE_SETTING,
    USERNAME,
    Ports,
    airflow_settings,
    inherited,
    passwords_file,
    port_settings,
)
from nightshard.local.processes import Process, free_ports, locked, port_is_free

__all__ = ["AirflowInfo", "LocalAirflow"]

START_TIMEOUT_S = 180
RETURN_TIMEOUT_S = 90
"""How long a running supervisor may take to bring its parts back before all is started anew."""
SUPERVISOR_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15
PORT_TIMEOUT_S = 10
POLL_S = 0.25
HEALTH_TIMEOUT_S = 15
"""An engine that loads may keep every core; who is slow to answer must not be taken for dead."""

TOO_MANY_FAILURES = 3
"""A part that ended so often in a row, each time soon after its start, will not start."""


class LocalAirflow:
    """Airflow on SQLite under ``home``, started, repaired, found again and stopped.

    Args:
        home: becomes ``AIRFLOW_HOME``.
        project: the folder with ``dags/`` and ``plugins/``.
        environment: what the tasks need beside: connections and Nightshard's settings. It may
            name another database for Airflow than the SQLite file of its home.
    """

    def __init__(self, home: Path, project: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.project = project
        self.environment = environment

    def output_file(self, part: str) -> Path:
        """Return the file with what a part, or the ``supervisor``, prints."""
        return output_file(self.home, part)

    def status(self) -> AirflowInfo | None:
        """Return the running Airflow, or None."""
        info = AirflowInfo.read(self.home)
        return info if info is not None and self._complete(info) else None

    def up(self, say: Callable[[str], None]) -> AirflowInfo:
        """Start Airflow, or return the one that runs with the same settings, repaired if need be.

        Raises:
            UserError: it did not become healthy in time; the log's last lines come along.
        """
        with locked(self.home / "up.lock"):
            info = AirflowInfo.read(self.home)
            if info is not None and self._settings_unchanged():
                if self._complete(info):
                    return info
                if self._supervised(info):
                    say("waiting for Airflow to come back")
                    if self._await_health(RETURN_TIMEOUT_S) is None:
                        return self._known()
                elif any(leads_part(pid) for pid in info.parts.values()):
                    say("starting what Airflow has lost")
                    return self._start(info)
            elif info is not None and self._processes():
                say("restarting Airflow, since its settings changed")
            self._stop()
            say("starting Airflow (about half a minute)")
            return self._start(self._new())

    def down(self) -> None:
        """Stop all processes of this Airflow; harmless where none runs."""
        if self.home.exists():
            with locked(self.home / "up.lock"):
                self._stop()

    def _stop(self) -> None:
        """Let the supervisor end its parts in order, then end whatever is left.

        Processes are found by their sessions and by a variable of their environment: one that
        renames itself loses its environment, and one that a task started may lead a session.
        """
        info = AirflowInfo.read(self.home)
        if info is not None and self._supervised(info):
            supervisor = psutil.Process(info.pid)
            signal_all([supervisor], signal.SIGTERM)
            psutil.wait_procs([supervisor], timeout=SUPERVISOR_TIMEOUT_S)
        left: list[psutil.Process] = []
        for sign in (signal.SIGTERM, signal.SIGKILL):
            # Asked again, since a scheduler may have started one more before it ended.
            processes = [*{*left, *self._processes()}]
            signal_all(processes, sign)
            _, left = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
        info_file(self.home).unlink(missing_ok=True)

    def _processes(self) -> list[psutil.Process]:
        """Find every process of this Airflow."""
        carriers = marked(self.home)
        sessions = {session for one in carriers if (session := session_of(one.pid)) is not None}
        info = AirflowInfo.read(self.home)
        if info is not None:
            sessions |= {info.pid, *info.parts.values()}
        return [*{*carriers, *members(sessions)}]

    def _new(self) -> AirflowInfo:
        return AirflowInfo(f"http://127.0.0.1:{self._ports().api}", USERNAME, self._password(), 0)

    def _start(self, info: AirflowInfo) -> AirflowInfo:
        """Start a supervisor; it takes over the parts of ``info`` that run."""
        replace(info, pid=0, failures={}).write(self.home)
        settings = self._settings()
        write_private(self._settings_file, settings)
        supervisor = spawn(
            self.home,
            "supervisor",
            [sys.executable, "-m", "nightshard.local.supervisor", str(self.home)],
            {**inherited(os.environ), **settings, **port_settings(self._ports())},
        )
        culprit = self._await_health(START_TIMEOUT_S, supervisor)
        if culprit is None:
            return self._known()
        file = self.output_file(culprit)
        tail = "\n".join(file.read_text(errors="replace").splitlines()[-15:])
        self._stop()
        raise UserError(f"Airflow did not start; the end of {file} says:\n{tail}")

    def _await_health(
        self, timeout_s: float, supervisor: "subprocess.Popen[bytes] | None" = None
    ) -> str | None:
        """Wait until all parts live and report so.

        Returns:
            None then; otherwise whose output tells why it did not come to that.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            info = self._known()
            if self._complete(info):
                return None
            if (part := _hopeless(info)) is not None:
                return part
            if supervisor is not None and supervisor.poll() is not None:
                return MIGRATION if MIGRATION in info.parts else "supervisor"
            time.sleep(POLL_S)
        return "supervisor"

    def _complete(self, info: AirflowInfo) -> bool:
        """Say whether supervisor and parts all live and Airflow calls itself healthy."""
        return (
            self._supervised(info)
            and {*info.parts} == {*PARTS}
            and all(leads_part(pid) for pid in info.parts.values())
            and _is_healthy(info.url)
        )

    def _supervised(self, info: AirflowInfo) -> bool:
        running = info.pid > 0 and Process.of(info.pid) is not None
        return running and owner_of(info.pid) == str(self.home)

    def _known(self) -> AirflowInfo:
        info = AirflowInfo.read(self.home)
        if info is None:
            raise UserError("Airflow was stopped while it started; start it again.")
        return info

    @property
    def _settings_file(self) -> Path:
        return self.home / "environment.json"

    def _settings(self) -> dict[str, str]:
        own = airflow_settings(self.home, self.project)
        if DATABASE_SETTING in self.environment:
            del own[DATABASE_SETTING]
        return {**self.environment, **own, "NIGHTSHARD_AIRFLOW_VERSION": version("apache-airflow")}

    def _settings_unchanged(self) -> bool:
        file = self._settings_file
        return file.exists() and json.loads(file.read_text()) == self._settings()

    def _ports(self) -> Ports:
        """Return the ports of last time, new ones where another program has taken one."""
        file = self.home / "ports.json"
        if file.exists():
            ports = Ports(**json.loads(file.read_text()))
            if AirflowInfo.read(self.home) is not None or _become_free(ports):
                return ports
        api, worker_logs, trigger_logs = free_ports(3)
        chosen = {"api": api, "worker_logs": worker_logs, "trigger_logs": trigger_logs}
        write_private(file, chosen)
        return Ports(**chosen)

    def _password(self) -> str:
        """Read or make the login's password, in the file that Airflow reads."""
        file = passwords_file(self.home)
        if file.exists():
            return str(json.loads(file.read_text())[USERNAME])
        password = secrets.token_urlsafe(12)
        write_private(file, {USERNAME: password})
        return password


def _become_free(ports: Ports) -> bool:
    """Say whether nobody listens at ports; a process that was killed may hold one a moment."""
    deadline = time.monotonic() + PORT_TIMEOUT_S
    wanted = [ports.api, ports.worker_logs, ports.trigger_logs]
    while not (free := all(port_is_free(port) for port in wanted)):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return free


def _hopeless(info: AirflowInfo) -> str | None:
    """Return a part that does not start however often it is tried."""
    return next((name for name, n in info.failures.items() if n >= TOO_MANY_FAILURES), None)


def _is_healthy(url: str) -> bool:
    """Say whether web server, scheduler, triggerer and DAG processor all report a heartbeat."""
    try:
        answer = httpx.get(f"{url}/api/v2/monitor/health", timeout=HEALTH_TIMEOUT_S)
        parts: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError):
        return False
    return all(
        parts.get(name, {}).get("status") == "healthy"
        for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )
