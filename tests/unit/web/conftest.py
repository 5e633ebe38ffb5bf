"""A run's folder on this machine, a squeue that says what a test wants, and the app on top."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient

from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.transport import CommandResult, shell_line
from nightshard.web.app import create_app
from nightshard.web.pages import NotThereError
from nightshard.web.runs import Run
from nightshard.web.shards import ShardTask
from nightshard.web.source import Source

WORLD_SIZE = 3
FINGERPRINT = "f" * 32


class LocalShell:
    """A transport whose login node is this machine; ``cut`` makes it lose every answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = False
        self.commands = 0
        self.closed = 0

    async def run(
        self,
        command: Sequence[str] | str,
        *,
        stdin: str | None = None,
        timeout_s: float = 10,
        idempotent: bool = False,
    ) -> CommandResult:
        self.commands += 1
        if self.cut:
            raise TransportError("The connection to the cluster broke: cut.")
        done = subprocess.run(  # noqa: ASYNC221 (a few milliseconds, in a test)
            ["sh", "-c", shell_line(command)],
            input=(stdin or "").encode(),
            capture_output=True,
            check=False,
            timeout=timeout_s,
            env={**os.environ, "PATH": f"{self.path}:{os.environ['PATH']}"},
        )
        return CommandResult(
            done.stdout.decode(errors="replace"), done.stderr.decode(), done.returncode
        )

    async def close(self) -> None:
        self.closed += 1


@dataclass
class Site:
    """One run on one cluster, and what Airflow knows of it."""

    folder: Path
    bin: Path
    shell: LocalShell
    profile: ClusterProfile
    run: Run
    scancelled: Path = field(init=False)

    def __post_init__(self) -> None:
        self.scancelled = self.bin / "scancelled"
        self.program("scancel", f'echo "$@" >>{self.scancelled}')
        self.squeue()

    @property
    def layout(self) -> RunLayout:
        return RunLayout(PurePosixPath(self.folder), "run-1")

    def program(self, name: str, body: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def squeue(self, *rows: str) -> None:
        """Make squeue list these elements of the run, ``56_0 RUNNING node1``."""
        lines = []
        for row in rows:
            element, word, node = row.split()
            array = element.partition("_")[0]
            index = element.partition("_")[2]
            name = "ns-run-1-a1"
            lines.append(f"{element}|{array}|{index}|99|{word}|None|{node}|N/A|1:05|{name}")
        (self.bin / "rows").write_text("\n".join(lines) + "\n")
        self.program("squeue", f"cat {self.bin / 'rows'}")

    def write(self, path: PurePosixPath, content: str | bytes | dict[str, Any]) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def submitted(self, label: str = "a1", **changes: Any) -> None:
        intent = {
            "name": f"ns-run-1-{label}",
            "tasks": WORLD_SIZE,
            "first_rank": 0,
            "job_id": "56",
            "cluster": None,
            "rejected": None,
        }
        self.write(self.layout.submission(label), {**intent, **changes})

    def tasks(self, *states: str | None) -> None:
        shards = tuple(
            ShardTask(self.layout, rank, WORLD_SIZE, 10, FINGERPRINT, state, 1)
            for rank, state in enumerate(states)
        )
        self.run = replace(self.run, shards=shards)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A staged run of three shards, all deferred."""
    programs = tmp_path / "bin"
    programs.mkdir()
    profile = ClusterProfile.model_validate(
        {
            "name": "test",
            "title": "Test cluster",
            "ssh_conn_id": "unused",
            "workdir": str(tmp_path),
            "worker": {"python": "python3"},
            "models": {"dir": "/models"},
        }
    )
    layout = RunLayout(PurePosixPath(tmp_path), "run-1")
    run = Run("evaluate", "manual__1", "running", "run-1", "org/<model>", profile, layout)
    made = Site(tmp_path, programs, LocalShell(programs), profile, run)
    for folder in layout.folders(WORLD_SIZE):
        Path(folder).mkdir(parents=True)
    made.tasks("deferred", "deferred", "deferred")
    return made


class FakeAirflow:
    """Knows one run."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def run(self, dag_id: str, dag_run_id: str) -> Run:
        if dag_run_id != self.site.run.dag_run_id:
            raise NotThereError(f"The DAG {dag_id!r} has no run {dag_run_id!r}.")
        return self.site.run

    def deployment(self) -> str | None:
        return "d1"

    def transport(self, profile: ClusterProfile) -> Any:
        return self.site.shell


def guard(header: str) -> Callable[[Request], None]:
    """Let in whom the request's header names as the one that may."""

    def check(request: Request) -> None:
        user = request.headers.get("user")
        if user is None:
            raise HTTPException(401, "Not authenticated")
        if user not in {"admin", header}:
            raise HTTPException(403, "Forbidden")

    return check


@pytest.fixture
def app(site: Site) -> TestClient:
    """The pages, for a user who may read and stop."""
    made = create_app(
        FakeAirflow(site),
        guard("reader"),
        guard("stopper"),
        lambda _: "/auth/login?next=here",
        source=Source(f"sqlite:///{site.folder}/results.db", str(site.folder / "store")),
        may_see=guard("seer"),
    )
    return TestClient(made, headers={"user": "admin"}, follow_redirects=False)
