"""With which settings the local Airflow runs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nightshard.local.airflow_parts import OWNER_MARK

USERNAME = "admin"
DATABASE_SETTING = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one Airflow listens; kept over restarts, since tasks and browsers hold addresses.

    Attributes:
        api: web page, REST API and the API of the tasks.
        worker_logs: the scheduler's server of its tasks' logs.
        trigger_logs: the triggerer's server of its triggers' logs.
    """

    api: int
    worker_logs: int
    trigger_logs: int


def airflow_settings(home: Path, project: Path) -> dict[str, str]:
    """Return what does not depend on the ports.

    Args:
        home: becomes ``AIRFLOW_HOME``.
        project: the folder with ``dags/`` and ``plugins/``.
    """
    return {
        OWNER_MARK: str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # The default keeps 32 idle workers, about 30 MB each.
        "AIRFLOW__CORE__PARALLELISM": os.environ.get("AIRFLOW__CORE__PARALLELISM", "4"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file(home)),
        DATABASE_SETTING: f"sqlite:///{database_file(home)}",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        # A chain of short tasks spends most of its time between two looks of the scheduler.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05",
        # A task whose process was killed is noticed by its silence; five minutes by default.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        # A dead scheduler's tasks are looked for at each start; this is for all that slips through.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
        # Tasks outlive a restart of the API server, and ask again soon enough not to seem silent.
        # A supervisor that hears its task's pipes close before the process is gone sleeps for one
        # interval, so one end in a few took five seconds longer (Airflow 3.3.2).
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "40",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "2",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "PYTHONUNBUFFERED": "1",
    }


def port_settings(ports: Ports) -> dict[str, str]:
    """Return what depends on the ports."""
    api = f"http://127.0.0.1:{ports.api}"
    return {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports.api),
        "AIRFLOW__API__BASE_URL": api,
        # Two Airflows on one machine would serve each other's logs at the default ports.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(ports.worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports.trigger_logs),
    }


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the processes take over from the caller's environment."""
    # Tasks start programs of this environment by their names.
    path = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])
    return {**foreign_settings_removed(environ), "PATH": path}


def foreign_settings_removed(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out the settings of an Airflow that the user has beside, above all its database."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("AIRFLOW__") and name != "AIRFLOW_CONFIG"
    }


def database_file(home: Path) -> Path:
    """Return Airflow's own database."""
    return home / "airflow.db"


def passwords_file(home: Path) -> Path:
    """Return the file from which Airflow reads its login's password."""
    return home / "passwords.json"
