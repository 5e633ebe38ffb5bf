"""What the worker's tests share: run folders and processes."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from shard_worker.layout import ShardLayout
from shard_worker.rows import Message, Request, Sampling, requests_to_bytes

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "shard_worker" / "src"
KILL_AFTER = 120


def make_requests(count: int, **sampling: Any) -> list[Request]:
    values: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 16,
        "stop": (),
        **sampling,
    }
    return [
        Request(
            request_id=f"{index:032x}",
            benchmark="Sums",
            problem_id=f"p{index // 2}",
            repeat_idx=index % 2,
            messages=(Message(role="user", content=f"what is {index} plus 1"),),
            sampling=Sampling(**{"seed": 1000 + 7 * index, **values}),
            cost=float(values["max_tokens"]),
        )
        for index in range(count)
    ]


def make_spec(model: Path, **changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "contract_version": 2,
        "run_key": "test-run",
        "fingerprint": "f" * 32,
        "world_size": 1,
        "model": {"name": "tiny", "path": str(model), "revision": "r1"},
        "engine": {
            "name": "echo",
            "dtype": "float32",
            "tensor_parallel": 1,
            "max_model_len": None,
            "gpu_memory_utilization": None,
            "enforce_eager": True,
            "options": {},
        },
        "chat_template_args": {},
        "flush": {"rows": 4, "seconds": 0.2},
        "progress_seconds": 0.4,
    }
    spec["engine"].update(changes.pop("engine", {}))
    return {**spec, **changes}


@dataclass
class Run:
    """A run folder with one shard, and the means to run it in a process of its own."""

    folder: Path
    python: str = sys.executable
    rank: int = 0
    world_size: int = 1
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def layout(self) -> ShardLayout:
        return ShardLayout(self.folder, self.rank, self.world_size)

    def write(self, spec: dict[str, Any], requests: Sequence[Request]) -> None:
        self.layout.inputs.parent.mkdir(parents=True, exist_ok=True)
        self.layout.spec.write_text(json.dumps(spec))
        self.layout.inputs.write_bytes(requests_to_bytes(requests))

    def arguments(self, attempt: int = 1) -> list[str]:
        return [
            *("-m", "shard_worker", "run", "--run-dir", str(self.folder)),
            *("--rank", str(self.rank), "--world-size", str(self.world_size)),
            *("--attempt", str(attempt)),
        ]

    def start(
        self,
        attempt: int = 1,
        *,
        path: Path = SOURCE,
        env: dict[str, str] | None = None,
        before: Sequence[str] = (),
        log: IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start an attempt.

        Nobody reads its pipes until it has ended: one that says much before needs a ``log``, or it
        stands still where the pipe is full.
        """
        process = subprocess.Popen(
            [*before, self.python, *self.arguments(attempt)],
            env={**os.environ, "PYTHONPATH": str(path), **(env or {})},
            stderr=log or subprocess.PIPE,
            stdout=log or subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        self.started.append(process)
        return process

    def finish(self, attempt: int = 1, **options: Any) -> tuple[int, str]:
        process = self.start(attempt, **options)
        out, err = process.communicate(timeout=KILL_AFTER)
        return process.returncode, out + err

    def progress(self) -> dict[str, Any]:
        return dict(json.loads(self.layout.progress.read_text()))

    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.layout.manifest.read_text()))
