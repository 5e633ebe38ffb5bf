"""What an attempt did with its time, and what a GPU hour bought."""

import threading
import time
from collections.abc import Callable
from typing import Any

from shard_worker.gpu import GpuSampler

MOST_POINTS = 60
_HOUR = 3600.0


class Telemetry:
    """Counts while a shard generates; cheap enough for every engine step.

    Args:
        gpus: where utilisation comes from, None without a GPU.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, gpus: GpuSampler | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gpus = gpus
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._last = clock()
        self._generating_s = self._idle_s = 0.0
        self._occupancy_sum = 0.0
        self._running = self._capacity = 0
        self._restarts = 0
        self._answers = self._prompt_tokens = self._output_tokens = 0
        self._width = 1.0
        self._tokens: list[int] = []
        if gpus is not None:
            gpus.start()

    def generating(self) -> None:
        """Begin to count time as generation; called after each load."""
        self._last = self._clock()

    def step(self, running: int, capacity: int) -> None:
        """Account for the time since the last step.

        Args:
            running: requests that the engine held.
            capacity: requests that it could hold.
        """
        now = self._clock()
        passed, self._last = now - self._last, now
        self._generating_s += passed
        self._running, self._capacity = running, capacity
        if running:
            self._occupancy_sum += passed * min(1.0, running / capacity)
        else:
            self._idle_s += passed

    def answer(self, prompt_tokens: int, output_tokens: int) -> None:
        """Count an answer; its tokens count for the second in which it ended."""
        with self._lock:
            self._answers += 1
            self._prompt_tokens += prompt_tokens
            self._output_tokens += output_tokens
            at = int((self._clock() - self._began) / self._width)
            while at >= MOST_POINTS:
                pairs = [*self._tokens, 0]
                self._tokens = [sum(pairs[i : i + 2]) for i in range(0, len(self._tokens), 2)]
                self._width *= 2
                at //= 2
            self._tokens += [0] * (at + 1 - len(self._tokens))
            self._tokens[at] += output_tokens

    def restart(self) -> None:
        """Count that the engine crashed and was started again."""
        self._restarts += 1

    def close(self) -> None:
        """End the looks at the GPUs."""
        if self._gpus is not None:
            self._gpus.stop()

    def snapshot(self) -> dict[str, Any]:
        """Return what ``progress.json`` shows, see its schema."""
        seen = self._gpus.use() if self._gpus is not None else None
        known = seen if seen is not None and seen.samples else None
        return {
            "running": self._running,
            "occupancy": self._occupancy(),
            "restarts": self._restarts,
            "gpu_util": round(known.util, 1) if known else None,
            "gpu_memory_gib": round(known.memory_gib, 2) if known else None,
        }

    def summary(self) -> dict[str, Any]:
        """Return what the manifest tells, see its schema."""
        seen = self._gpus.use() if self._gpus is not None else None
        known = seen if seen is not None and seen.samples else None
        count = self._gpus.count if self._gpus is not None else 0
        gpu_s = (self._clock() - self._began) * count
        with self._lock:
            return {
                "idle_s": round(self._idle_s, 3),
                "occupancy": self._occupancy(),
                "restarts": self._restarts,
                "tokens_per_s": [
                    [round(at * self._width, 1), round(tokens / self._width, 1)]
                    for at, tokens in enumerate(self._tokens)
                ],
                "gpu_util": round(known.util_sum / known.samples, 1) if known else None,
                "gpu_memory_gib": round(known.peak_gib, 2) if known else None,
                "energy_j": None if self._gpus is None else self._gpus.energy_j(),
                "gpu_seconds": round(gpu_s, 1),
                "answers_per_gpu_hour": _per_hour(self._answers, gpu_s),
                "output_tokens_per_gpu_hour": _per_hour(self._output_tokens, gpu_s),
            }

    def _occupancy(self) -> float | None:
        if self._generating_s <= 0:
            return None
        return round(self._occupancy_sum / self._generating_s, 3)


def _per_hour(count: int, gpu_s: float) -> float | None:
    return round(count * _HOUR / gpu_s, 1) if gpu_s > 0 else None
