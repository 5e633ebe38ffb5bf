"""A limit on the processor time of one judgement."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

CPU_SECONDS = 5.0
"""Processor time of one judgement; almost all take a few milliseconds."""

_AGAIN_SECONDS = 1.0


class JudgingTimeout(BaseException):
    """A judgement used up its processor time.

    Not an Exception: the scorers catch those broadly and would carry on.
    """


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`JudgingTimeout` in the block once it has used ``seconds`` of processor time.

    Processor time and not wall time, so that a busy machine changes no verdict. The signal comes
    again every second, in case a bare ``except`` swallowed the first. A call that never returns
    to Python cannot be ended this way; the pool kills its process.

    Raises:
        ValueError: called outside the main thread, where Python handles no signals.
    """

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise JudgingTimeout

    before = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
