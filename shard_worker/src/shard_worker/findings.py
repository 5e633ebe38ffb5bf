"""What a check of ``shard-worker selfcheck`` is told, and what it answers."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shard_worker.errors import ConfigError

Level = Literal["ok", "note", "warn", "fail"]
GIB = 1 << 30
PROCESS_S = 45.0
ALL_S = 55.0
LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found.

    Attributes:
        sentence: what was found; if it is not fine, also what to do.
        level: ``note`` is worth knowing, ``warn`` may cost time later; a shard runs with both.
    """

    sentence: str
    level: Level = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: a word or two.
        level: ``fail`` where a shard could not run, else as in :class:`Outcome`.
        sentence: what was found.
    """

    what: str
    level: Level
    sentence: str

    @property
    def ok(self) -> bool:
        """Whether a shard could run."""
        return self.level != "fail"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be run here.

    Attributes:
        engine: of the worker.
        model: folder of the weights, None for no model.
        work: folder on the shared file system.
        gpu: whether a GPU must be here.
        deadline: of all checks together, by ``time.monotonic``.
    """

    engine: str
    model: Path | None
    work: Path
    gpu: bool
    deadline: float = field(default_factory=lambda: time.monotonic() + ALL_S)


def run_python(wish: Wish, code: str, failure: str, *arguments: str) -> str:
    """Run code in a process of its own, so that one that crashes or hangs is a sentence.

    Args:
        wish: its deadline bounds the time.
        code: a program for this interpreter.
        failure: what could not be done, the beginning of the sentence.
        arguments: of the program.

    Returns:
        What it printed.

    Raises:
        ConfigError: it failed, died or took too long.
    """
    limit = max(LEAST_S, min(PROCESS_S, wish.deadline - time.monotonic()))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{failure}: it took more than {limit:.0f} s; try again, as a second time is faster, "
            "and if it hangs, move the environment to a faster disk."
        ) from None
    if done.returncode < 0:
        raise ConfigError(
            f"{failure}: the process died of {signal.Signals(-done.returncode).name}; the "
            f"environment of {sys.executable} does not fit this machine, install it anew here."
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ConfigError(f"{failure}: {last.rstrip('.')}; mend what it names.")
    return done.stdout
