"""Ending well when Slurm asks."""

import signal
import time
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""SIGTERM: scancel, preemption, time limit. SIGUSR1: sbatch ``--signal``, ahead of the limit."""


class StopNowError(BaseException):
    """Raised out of an engine's loading; no ``except Exception`` of a library may swallow it."""


class StopRequest:
    """Remembers that a signal asked this process to end.

    While ``urgent`` (an engine loads for minutes and cannot be asked to stop) the signal raises
    at once; otherwise the loop asks for the :meth:`wish` between two steps.

    Attributes:
        name: of the signal that came, None before.
        urgent: raise in the handler.
        deadline: monotonic second at which the process shall end by itself.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.deadline: float | None = None
        self.urgent = False

    def wish(self) -> str | None:
        """Return what asks this process to end now, None if nothing does."""
        if self.name is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.name = "the approach of its time limit"
        return self.name

    def install(self) -> None:
        """Take the signals, in the main thread."""
        for number in STOPPING:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        if self.urgent:
            self.urgent = False  # a second signal must not interrupt the ending
            raise StopNowError(self.name)
