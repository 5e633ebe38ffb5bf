"""A cluster that exists only in memory: a scripted transport and the files of the contract."""

import asyncio
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submission import Shard
from nightshard.clusters.submit import ArrayJob
from nightshard.clusters.transport import CommandResult

LAYOUT = RunLayout(PurePosixPath("/work"), "run-1")
SHARD = Shard(
    layout=LAYOUT,
    rank=0,
    world_size=4,
    rows=10,
    fingerprint="f" * 32,
    array_size=4,
    worker="/work/worker.zip",
    max_job_minutes=60,
)
JOB = ArrayJob("56", None, "ns-run-1-a1", 1)


def watched(rank: int = 0, job: ArrayJob = JOB) -> WatchedShard:
    return WatchedShard(LAYOUT, rank, 4, job, rows=10, fingerprint="f" * 32)


def manifest_text(rank: int = 0, **changes: Any) -> str:
    value = {
        "contract_version": 2,
        "run_key": "run-1",
        "fingerprint": "f" * 32,
        "rank": rank,
        "world_size": 4,
        "attempt": 1,
        "rows": 10,
        "errors": 1,
        "output_file": f"shard-{rank:05d}-of-00004.parquet",
        "sha256": "0" * 64,
        "prompt_tokens": 100,
        "output_tokens": 200,
        "timings": {"import_s": 1.0, "load_s": 2.0, "generate_s": 3, "total_s": 6.5},
        "gpu": None,
        "node": "node1",
        "slurm": {
            "job_id": "57",
            "array_job_id": "56",
            "array_task_id": str(rank),
            "cluster": "local",
        },
        "versions": {"vllm": "0.32.0"},
        "started_at": "2026-11-24T22:00:00+00:00",
        "finished_at": "2026-11-24T22:00:06+00:00",
    }
    return json.dumps({**value, **changes})


def progress_text(rank: int = 0, **changes: Any) -> str:
    value = {
        "contract_version": 2,
        "rank": rank,
        "attempt": 1,
        "phase": "generating",
        "done": 3,
        "total": 10,
        "errors": 0,
        "output_tokens": 60,
        "tokens_per_s": 12.5,
        "node": "node1",
        "job_id": "57",
        "updated_at": "2026-11-24T22:00:03+00:00",
        "message": None,
    }
    return json.dumps({**value, **changes})


Answer = CommandResult | Exception


class FakeTransport:
    """Files in a dictionary, and commands answered by a function that a test gives."""

    def __init__(self, answer: Callable[[list[str], str | None], Answer]) -> None:
        self.answer = answer
        self.files: dict[PurePosixPath, bytes] = {}
        self.commands: list[list[str]] = []
        self.on_close: Callable[[], None] = lambda: None

    async def run(
        self, command: Sequence[str] | str, *, stdin: str | None = None, **_: Any
    ) -> CommandResult:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        self.commands.append(words)
        answer = self.answer(words, stdin)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ran(self, program: str) -> int:
        return sum(command[0] == program for command in self.commands)

    async def put_bytes(self, path: PurePosixPath, data: bytes) -> None:
        self.files[path] = data

    async def put_file(self, path: PurePosixPath, local: Path) -> None:
        self.files[path] = await asyncio.to_thread(local.read_bytes)

    async def create_bytes(self, path: PurePosixPath, data: bytes) -> bool:
        return self.files.setdefault(path, data) is data

    async def get_bytes(self, path: PurePosixPath) -> bytes | None:
        return self.files.get(path)

    async def get_file(self, path: PurePosixPath, local: Path) -> None:
        if path not in self.files:
            raise TransportError(f"reading {path} on the cluster failed: No such file.")
        await asyncio.to_thread(local.write_bytes, self.files[path])

    async def exists(self, path: PurePosixPath) -> bool:
        return path in self.files

    async def close(self) -> None:
        self.on_close()

    async def __aenter__(self) -> "FakeTransport":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Helpers:
    """What the tests of this folder build with."""

    layout = LAYOUT
    job = JOB
    shard = SHARD
    submission = SHARD.submission(1)
    watched = staticmethod(watched)
    manifest_text = staticmethod(manifest_text)
    progress_text = staticmethod(progress_text)
    transport = FakeTransport


@pytest.fixture
def lab() -> type[Helpers]:
    return Helpers
