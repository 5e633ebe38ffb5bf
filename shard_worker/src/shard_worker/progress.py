"""``progress.json``: a sign of life and a count, for people and for the orchestrator."""

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from shard_worker import CONTRACT_VERSION
from shard_worker.fsio import write_atomic
from shard_worker.telemetry import Telemetry

log = logging.getLogger(__name__)


class Progress:
    """Keeps ``progress.json`` fresh from a thread of its own, also while an engine loads.

    Used as a context manager; on leaving, the last state is written and the thread ends.

    Args:
        path: the file; its folder must exist.
        rank: of the shard.
        attempt: of this process.
        node: where it runs.
        job_id: Slurm's, None outside Slurm.
        every: longest time between two refreshes, in seconds.
        telemetry: asked for a snapshot at each refresh.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        rank: int,
        attempt: int,
        node: str,
        job_id: str | None,
        every: float,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._telemetry = telemetry
        self._path = path
        self._fixed = {
            "contract_version": CONTRACT_VERSION,
            "rank": rank,
            "attempt": attempt,
            "node": node,
            "job_id": job_id,
        }
        self._clock = clock
        # Half the promise, so that a slow write or a busy interpreter does not break it.
        self._every = every / 2
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="progress", daemon=True)
        self._phase = "starting"
        self._message: str | None = None
        self._total = self._done = self._errors = self._tokens = 0
        self._own_tokens = 0
        self._began: float | None = None
        self._rate = 0.0

    def __enter__(self) -> "Progress":
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._write()

    def phase(self, phase: str, message: str | None = None) -> None:
        """Enter a phase (``schemas/progress.schema.json`` lists them) and write it at once."""
        with self._lock:
            self._phase, self._message = phase, message
            if phase == "generating":
                self._began = self._clock()
        self._write()

    def resume(self, *, total: int, done: int, errors: int, output_tokens: int) -> None:
        """Set the counts with which this attempt begins."""
        with self._lock:
            self._total, self._done, self._errors = total, done, errors
            self._tokens = output_tokens

    def expect(self, total: int) -> None:
        """Set how many answers the shard will have, as far as it is known now."""
        with self._lock:
            self._total = total

    def count(self, *, output_tokens: int, error: bool) -> None:
        """Count one finished answer."""
        with self._lock:
            self._done += 1
            self._errors += error
            self._tokens += output_tokens
            self._own_tokens += output_tokens

    def _refresh(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _write(self) -> None:
        with self._write_lock:  # around both steps, so that an older state never follows a newer
            data = json.dumps(self._state()).encode()
            try:
                write_atomic(self._path, data, durable=False)
            except OSError as error:  # a sign of life is not worth an answer
                log.warning("progress could not be written: %s", error)

    def _state(self) -> dict[str, Any]:
        with self._lock:
            if self._phase == "generating" and self._began is not None:
                self._rate = self._own_tokens / max(self._clock() - self._began, 1e-3)
            return {
                **self._fixed,
                "phase": self._phase,
                "done": self._done,
                "total": self._total,
                "errors": self._errors,
                "output_tokens": self._tokens,
                "tokens_per_s": round(self._rate, 1),
                "updated_at": datetime.now(UTC).isoformat(),
                "message": self._message,
                "telemetry": self._telemetry.snapshot() if self._telemetry else {},
            }
