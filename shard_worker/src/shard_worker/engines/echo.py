"""An engine without a model, for tests and for measuring what surrounds the engine."""

import time
from collections import deque
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
        load_seconds: float = 0.0,
    ) -> None:
        self.capacity = concurrency
        self.gpu: str | None = None
        self._answer = answer
        self._seconds = seconds_per_request
        self._load_seconds = load_seconds
        self._running: deque[tuple[float, Request]] = deque()

    def load(self, requests: Sequence[Request]) -> None:
        """Pretend to load."""
        time.sleep(self._load_seconds)

    def add(self, request: Request) -> None:
        """Start a request's clock."""
        self._running.append((time.monotonic() + self._seconds, request))

    def step(self) -> list[Completion]:
        """Return what is due, waiting for it for a moment at most."""
        if not self._running:
            return []
        wait = self._running[0][0] - time.monotonic()
        if wait > 0:
            time.sleep(min(wait, LONGEST_STEP))
        finished = []
        while self._running and self._running[0][0] <= time.monotonic():
            finished.append(self._complete(self._running.popleft()[1]))
        return finished

    def close(self) -> None:
        """Drop what is running."""
        self._running.clear()

    def _complete(self, request: Request) -> Completion:
        text = self._answer if self._answer is not None else request.messages[-1]["content"]
        words = text.split(" ")
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
