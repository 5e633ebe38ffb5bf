"""An engine without a model, for tests and for measuring what surrounds the engine."""

import heapq
import time
from collections.abc import Sequence

from shard_worker.contract import Spec
from shard_worker.engines.base import Completion
from shard_worker.rows import Request

LONGEST_STEP = 0.05


class EchoEngine:
    """Answers with a fixed text or the last message, after a fixed time.

    Tokens are words. An answer is cut to ``max_tokens`` words, as a model's would be.
    """

    def __init__(
        self,
        *,
        answer: str | None = None,
        concurrency: int = 8,
        seconds_per_request: float = 0.0,
        seconds_per_word: float = 0.0,
        load_seconds: float = 0.0,
        crash_on: str | None = None,
    ) -> None:
        self.capacity = concurrency
        self.gpu: str | None = None
        self.compile_s = 0.0
        self.token_room: int | None = None
        self._answer = answer
        self._seconds = seconds_per_request
        self._seconds_per_word = seconds_per_word
        self._load_seconds = load_seconds
        self._crash_on = crash_on
        self._running: list[tuple[float, int, Request]] = []
        self._added = 0

    def load(self, requests: Sequence[Request]) -> None:
        """Pretend to load."""
        time.sleep(self._load_seconds)

    def fits(self, request: Request) -> bool:
        """Every request fits."""
        return True

    def add(self, request: Request) -> None:
        """Start a request's clock."""
        seconds = self._seconds + self._seconds_per_word * len(self._words(request))
        self._added += 1
        heapq.heappush(self._running, (time.monotonic() + seconds, self._added, request))

    def step(self) -> list[Completion]:
        """Return what is due, waiting for it for a moment at most."""
        if not self._running:
            return []
        if any(self._crashes(request) for _, _, request in self._running):
            raise RuntimeError("the echo engine was told to crash on this")
        wait = self._running[0][0] - time.monotonic()
        if wait > 0:
            time.sleep(min(wait, LONGEST_STEP))
        finished = []
        while self._running and self._running[0][0] <= time.monotonic():
            finished.append(self._complete(heapq.heappop(self._running)[2]))
        return finished

    def close(self) -> None:
        """Drop what is running."""
        self._running.clear()

    def _crashes(self, request: Request) -> bool:
        return self._crash_on is not None and self._crash_on in request.messages[-1]["content"]

    def _words(self, request: Request) -> list[str]:
        text = self._answer if self._answer is not None else request.messages[-1]["content"]
        return text.split(" ")

    def _complete(self, request: Request) -> Completion:
        words = self._words(request)
        limit = request.sampling.max_tokens
        return Completion(
            request_id=request.request_id,
            text=" ".join(words[:limit]),
            prompt_tokens=sum(len(m["content"].split()) for m in request.messages),
            output_tokens=min(len(words), limit),
            finish_reason="length" if len(words) > limit else "stop",
        )


def make(spec: Spec) -> EchoEngine:
    """Make the engine from ``engine.options``."""
    return EchoEngine(**spec.engine.options)
