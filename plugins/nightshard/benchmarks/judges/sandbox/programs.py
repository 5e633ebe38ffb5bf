"""What is run in the sandbox, what it may use, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum


class End(StrEnum):
    """How a program ended."""

    WELL = "well"
    FAILED = "failed"
    CPU = "cpu"
    WALL = "wall"
    MEMORY = "memory"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use.

    Attributes:
        cpu_s: processor seconds, whole; these are judged first, so that a slow or busy machine
            changes no verdict.
        wall_s: seconds by the clock, for programs that wait for ever.
        memory: bytes of address space.
        output: bytes of standard output, and of any file.
    """

    cpu_s: int = 10
    wall_s: float = 120.0
    memory: int = 1 << 30
    output: int = 8 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """Python source.

    Attributes:
        source: runs as ``answer.py``.
        prelude: runs before it, with the same names; its lines do not count in complaints.
    """

    source: str
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a program.

    Attributes:
        end: how it ended.
        stdout: what it printed, or the ``repr`` of what a call returned.
        stderr: the last 2,000 bytes of its complaints.
        cpu_s: processor seconds that it used.
        wall_s: seconds by the clock.
    """

    end: End
    stdout: str
    stderr: str
    cpu_s: float
    wall_s: float

    @property
    def complaint(self) -> str:
        """The last line of its complaints."""
        return self.stderr.strip().rpartition("\n")[2]
