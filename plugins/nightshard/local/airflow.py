"""Airflow on this machine: ``airflow standalone`` in a folder of its own."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from nightshard.core.errors import UserError
from nightshard.local.processes import free_port

START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 15
POLL_S = 0.5
HEALTH_TIMEOUT_S = 15
"""An engine that loads may keep every core; who is slow to answer must not be taken for dead."""

USERNAME = "admin"
OWNER_MARK = "NIGHTSHARD_LOCAL_AIRFLOW"
"""Variable by which our processes are found again; nobody's own shell carries it."""


@dataclass(frozen=True, slots=True)
class AirflowInfo:
    """A running local Airflow, as kept in ``airflow.json`` (readable by its owner only).

    Attributes:
        url: address of the web page and of the REST API.
        username: login.
        password: made anew for each home folder.
        pid: process group of all its processes.
    """

    url: str
    username: str
    password: str
    pid: int


class LocalAirflow:
    """``airflow standalone`` on SQLite under ``home``, started, found again and stopped.

    Args:
        home: becomes ``AIRFLOW_HOME``.
        project: the folder with ``dags/`` and ``plugins/``.
        environment: what the tasks need beside: connections and Nightshard's settings.
    """

    def __init__(self, home: Path, project: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.project = project
        self.environment = environment

    @property
    def _info_file(self) -> Path:
        return self.home / "airflow.json"

    @property
    def log_file(self) -> Path:
        """What all the components print."""
        return self.home / "standalone.log"

    def status(self) -> AirflowInfo | None:
        """Return the running Airflow, or None."""
        if not self._info_file.exists():
            return None
        info = AirflowInfo(**json.loads(self._info_file.read_text()))
        return info if psutil.pid_exists(info.pid) and _is_healthy(info.url) else None

    def up(self, say: Callable[[str], None]) -> AirflowInfo:
        """Start Airflow, or return the one that runs with the same environment.

        Raises:
            UserError: it did not become healthy in time; the log's last lines come along.
        """
        running = self.status()
        if running is not None and self._environment_file.exists():
            if json.loads(self._environment_file.read_text()) == dict(self.environment):
                return running
            say("restarting Airflow, since its settings changed")
        self.down()
        self.home.mkdir(parents=True, exist_ok=True)
        port = free_port()
        password = self._password()
        say("starting Airflow (about half a minute)")
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env=self._process_environment(port),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        info = AirflowInfo(f"http://127.0.0.1:{port}", USERNAME, password, process.pid)
        _write_private(self._info_file, asdict(info))
        _write_private(self._environment_file, dict(self.environment))
        self._await_health(process, info.url)
        return info

    def down(self) -> None:
        """Stop all processes of this Airflow; harmless where none runs.

        They are found by their session and by a variable of their environment: a signal to the
        parent alone orphans its children, and a process that renames itself loses its environment.
        """
        left: list[psutil.Process] = []
        for sign in (signal.SIGTERM, signal.SIGKILL):
            # Asked again, since a scheduler may have started one more before it ended.
            processes = [*{*left, *self._processes()}]
            for process in processes:
                try:
                    process.send_signal(sign)
                except psutil.Error:
                    continue
            _, left = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
        self._info_file.unlink(missing_ok=True)

    def _processes(self) -> list[psutil.Process]:
        """Find every process of this Airflow."""
        marked = {process.pid for process in psutil.process_iter() if self._marked(process)}
        sessions = {session for pid in marked if (session := _session(pid)) is not None}
        if self._info_file.exists():
            sessions.add(json.loads(self._info_file.read_text())["pid"])
        sessions.discard(os.getsid(0))
        return [
            process
            for process in psutil.process_iter()
            if process.pid in marked
            or (_session(process.pid) in sessions and "airflow" in _command(process))
        ]

    def _marked(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(OWNER_MARK) == str(self.home)
        except psutil.Error:
            return False

    @property
    def _environment_file(self) -> Path:
        return self.home / "environment.json"

    def _password(self) -> str:
        """Read or make the login's password, in the file that Airflow reads."""
        file = self.home / "passwords.json"
        if file.exists():
            return str(json.loads(file.read_text())[USERNAME])
        password = secrets.token_urlsafe(12)
        _write_private(file, {USERNAME: password})
        return password

    def _process_environment(self, port: int) -> dict[str, str]:
        api = f"http://127.0.0.1:{port}"
        return {
            **foreign_settings_removed(os.environ),
            **self.environment,
            # `standalone` starts its parts by the name `airflow`.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            OWNER_MARK: str(self.home),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.project / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.project / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # The default keeps 32 idle workers, about 30 MB each.
            "AIRFLOW__CORE__PARALLELISM": os.environ.get("AIRFLOW__CORE__PARALLELISM", "4"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": api,
            # A chain of short tasks spends most of its time between two looks of the scheduler.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "PYTHONUNBUFFERED": "1",
        }

    def _await_health(self, process: subprocess.Popen[bytes], url: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if _is_healthy(url):
                return
            if process.poll() is not None:
                break
            time.sleep(POLL_S)
        tail = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-15:])
        self.down()
        raise UserError(f"Airflow did not start; the end of {self.log_file} says:\n{tail}")


def foreign_settings_removed(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out the settings of an Airflow that the user has beside, above all its database."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("AIRFLOW__") and name != "AIRFLOW_CONFIG"
    }


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


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _write_private(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(value))
