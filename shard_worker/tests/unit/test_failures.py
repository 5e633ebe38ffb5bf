"""The exit code says why an engine failed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from worker_testing import Run

from shard_worker.engines.echo import EchoEngine
from shard_worker.failures import LogTail, explain
from shard_worker.parts import read_parts
from shard_worker.rows import Request

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "log", "code"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "", 3),
        (MemoryError(), "", 3),
        (RuntimeError("core failed"), "ValueError: No available memory for the cache blocks.", 3),
        (RuntimeError("core failed"), "Segmentation fault", 4),
        (ValueError("shape mismatch"), "", 4),
    ],
)
def test_memory_is_told_from_a_crash(error: Exception, log: str, code: int) -> None:
    assert explain(error, log).exit_code == code


def test_only_what_the_log_gained_counts(tmp_path: Path) -> None:
    log = tmp_path / "attempt-1.log"
    log.write_text("an old out of memory\n")
    tail = LogTail(log)
    assert tail.read() == ""
    with log.open("a") as stream:
        stream.write("new")
    assert tail.read() == "new"


class Failing(EchoEngine):
    """Answers a few requests and then breaks, or breaks while it loads."""

    def __init__(self, error: Exception, good_steps: int | None) -> None:
        super().__init__(concurrency=1)
        self.error, self.good_steps, self.closed = error, good_steps, False

    def load(self, requests: Sequence[Request]) -> None:
        if self.good_steps is None:
            raise self.error

    def step(self) -> list[Any]:
        assert self.good_steps is not None
        self.good_steps -= 1
        if self.good_steps < 0:
            raise self.error
        return super().step()

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("error", "good_steps", "code"),
    [
        (RuntimeError("CUDA out of memory"), None, 3),
        (RuntimeError("CUDA error: no device"), None, 4),
        (MemoryError(), 3, 3),
    ],
)
def test_a_broken_engine_keeps_its_answers_and_says_why(
    run: Run,
    echo_run: Callable[..., list[Request]],
    monkeypatch: pytest.MonkeyPatch,
    here: Callable[[], int],
    *,
    error: Exception,
    good_steps: int | None,
    code: int,
) -> None:
    echo_run(10)
    engine = Failing(error, good_steps)
    monkeypatch.setattr("shard_worker.generate.make_engine", lambda spec: engine)
    assert here() == code
    assert len(read_parts(run.layout.parts, "f" * 32)) == (good_steps or 0)
    assert engine.closed
    assert not run.layout.output.exists()
    assert run.progress()["phase"] == "failed"
