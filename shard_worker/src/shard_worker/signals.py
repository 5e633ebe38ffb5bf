"""Ending well when Slurm asks."""

import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""SIGTERM: scancel, preemption, time limit. SIGUSR1: sbatch ``--signal``, ahead of the limit."""


class StopNowError(BaseException):
    """Raised out of an engine's loading; no ``except Exception`` of a library may swallow it."""


class StopRequest:
    """Remembers that a signal asked this process to end.

    While ``urgent`` (an engine loads for minutes and cannot be asked to stop) the signal raises
    at once; otherwise the loop looks at :attr:`name` between two steps.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.urgent = False

    def install(self) -> None:
        """Take the signals, in the main thread."""
        for number in STOPPING:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        if self.urgent:
            self.urgent = False  # a second signal must not interrupt the ending
            raise StopNowError(self.name)
