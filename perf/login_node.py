"""What the benchmarks of polling share: a login node, many runs on it, and a tap on the line."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import asyncssh

from nightshard.clusters.layout import RunLayout
from nightshard.clusters.login import connector
from nightshard.clusters.ssh import SshTransport
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob
from nightshard.clusters.transport import CommandResult
from nightshard.local.info import ClusterInfo

FINGERPRINT = "f" * 32
ROWS = 512


@dataclass
class Line:
    """A transport that counts what goes over it, and what it costs at the other end.

    Attributes:
        info: the cluster.
        programs: folder that comes first on the remote PATH; None leaves it as it is.
        logins: connections made.
        commands: remote commands.
        sent: bytes of scripts.
        received: bytes of answers.
        remote_cpu: CPU seconds of each remote command with its children.
        answered: an item for each.
    """

    info: ClusterInfo
    programs: Path | None = None
    logins: int = 0
    commands: int = 0
    sent: int = 0
    received: int = 0
    remote_cpu: list[float] = field(default_factory=list)
    answered: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    def transport(self) -> "CountingTransport":
        """Return a transport to the login node."""
        dial = connector(
            self.info.ssh_host,
            self.info.ssh_port,
            self.info.ssh_user,
            self.info.ssh_key,
            self.info.known_hosts,
        )

        async def connect() -> asyncssh.SSHClientConnection:
            self.logins += 1
            return await dial()

        return CountingTransport(self, connect)


class CountingTransport(SshTransport):
    """The real transport; only its commands are counted, and ``times`` is asked after each."""

    def __init__(self, line: Line, connect: Any) -> None:
        super().__init__(connect)
        self._line = line

    async def run(self, command: Any, *, stdin: str | None = None, **options: Any) -> CommandResult:
        """See :meth:`SshTransport.run`."""
        line, script = self._line, stdin or ""
        line.commands += 1
        line.sent += len(script.encode())
        path = f"PATH={shlex.quote(str(line.programs))}:$PATH; export PATH\n"
        script = f"{path if line.programs else ''}{script}times >&2\n"
        result = await super().run(command, stdin=script, **options)
        line.received += len(result.stdout.encode())
        line.remote_cpu.append(cpu_seconds(result.stderr))
        line.answered.put_nowait(None)
        return result


def cpu_seconds(times: str) -> float:
    """Add up what the shell's ``times`` prints: ``0m0.01s 0m0.02s``, the children's below."""
    total = 0.0
    for word in times.split():
        minutes, _, seconds = word.rstrip("s").partition("m")
        if minutes.isdigit() and seconds:
            total += 60 * int(minutes) + float(seconds)
    return total


def make_runs(workdir: Path, runs: int, shards: int) -> list[list[WatchedShard]]:
    """Make the folders of so many runs; the ids of their jobs are made up."""
    made = []
    for number in range(runs):
        layout = RunLayout(
            PurePosixPath(workdir), f"20261124-2323-smollm2-135m-instruct-{number:06x}"
        )
        for folder in layout.folders(shards):
            Path(folder).mkdir(parents=True, exist_ok=True)
        job = ArrayJob(str(1000 + number * shards), None, layout.job_name("a1"), 1)
        made.append(
            [
                WatchedShard(layout, rank, shards, job, ROWS, FINGERPRINT, max_job_minutes=600)
                for rank in range(shards)
            ]
        )
    return made


def progress_text(rank: int, done: int) -> str:
    """Return what a worker writes."""
    return json.dumps(
        {
            "contract_version": 2,
            "rank": rank,
            "attempt": 1,
            "job_id": "1234567",
            "node": f"node{rank}",
            "phase": "generating",
            "done": done,
            "total": ROWS,
            "errors": 0,
            "output_tokens": 400 * done,
            "tokens_per_s": 1250.5,
            "updated_at": "2026-11-24T22:00:03.123456+00:00",
            "message": None,
        }
    )


def row(shard: WatchedShard, word: str, used: str) -> str:
    """Return a row as squeue prints it."""
    job, index = shard.job, shard.rank - shard.job.first_rank
    raw_id = int(job.job_id) + index
    fields = (f"{job.job_id}_{index}", job.job_id, index, raw_id, word, "None")
    where = (f"node{index % 128}", "2026-11-24T22:59:07", used, job.name)
    return "|".join(map(str, (*fields, *where)))


def stand_in(folder: Path, shards: list[WatchedShard]) -> Path:
    """Write a ``squeue`` that lists all shards as running, and a ``sacct`` that knows nothing."""
    folder.mkdir()
    listing = folder / "queue.txt"
    listing.write_text("".join(row(one, "RUNNING", "1:02:03") + "\n" for one in shards))
    for name, body in {
        "squeue": f"exec cat {shlex.quote(str(listing))}",
        "sacct": "exit 0",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


WORKERS = """
import itertools, os, pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from login_node import progress_text
files = [pathlib.Path(line.strip()) for line in open(sys.argv[2])]
for done in itertools.count(1):
    began = time.monotonic()
    for file in files:
        part = file.with_suffix(".part")
        part.write_text(progress_text(int(file.parent.name), done % 500))
        os.replace(part, file)
    if done == 1:
        print("ready", flush=True)
    time.sleep(max(0.0, float(sys.argv[3]) - time.monotonic() + began))
"""


@contextmanager
def workers(folder: Path, shards: list[WatchedShard], every_s: float) -> Iterator[None]:
    """Rewrite every shard's progress again and again, in a process of its own."""
    names = folder / "progress-files.txt"
    names.write_text("".join(f"{one.layout.progress(one.rank)}\n" for one in shards))
    command = [sys.executable, "-c", textwrap.dedent(WORKERS), str(Path(__file__).parent)]
    process = subprocess.Popen(
        [*command, str(names), str(every_s)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def submit_held(info: ClusterInfo, runs: list[list[WatchedShard]]) -> list[list[WatchedShard]]:
    """Submit a held array for each run to the real Slurm; return the shards with its real ids."""
    submitted = []
    for shards in runs:
        job = shards[0].job
        done = subprocess.run(
            [
                "sbatch",
                "--parsable",
                "--hold",
                f"--job-name={job.name}",
                f"--array=0-{len(shards) - 1}",
                "--output=/dev/null",
                "--mem=10",
                "--wrap=sleep 1",
            ],
            env={**os.environ, **info.environment()},
            check=True,
            capture_output=True,
            text=True,
        )
        real = replace(job, job_id=done.stdout.strip())
        submitted.append([replace(one, job=real) for one in shards])
    return submitted


def cancel_held(info: ClusterInfo, shards: list[WatchedShard]) -> None:
    """Take the arrays out of the queue again."""
    jobs = sorted({one.job.job_id for one in shards})
    subprocess.run(["scancel", *jobs], env={**os.environ, **info.environment()}, check=True)


class Usage:
    """CPU of this process and wall time since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def cpu(self) -> float:
        """Return CPU seconds."""
        return time.process_time() - self._cpu

    def wall(self) -> float:
        """Return seconds."""
        return time.monotonic() - self._wall
