"""Judging on all cores, in processes that may be killed without harm."""

import contextlib
import dataclasses
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from nightshard.benchmarks.base import Problem, Verdict
from nightshard.benchmarks.judges.limits import CPU_SECONDS
from nightshard.core.errors import NightshardError

CHUNK = 32
"""Answers handed to a process at a time: its replies fit in a pipe's 64 KiB, so nobody blocks."""

SHARE = 4
"""Towards the end chunks get smaller, this part of a process's share, so that all end together."""

KILL_CPU_SECONDS = 3 * CPU_SECONDS
KILL_WALL_SECONDS = 600.0
START_SECONDS = 120.0
ANSWERS_PER_PROCESS = 100
"""A process costs about a second to start, the time of some hundred judgements."""

COMMAND = (sys.executable, "-m", "nightshard.benchmarks.judges.process")
_PACKAGES = Path(__file__).resolve().parents[3]
_POLL_SECONDS = 0.5


class JudgeError(NightshardError):
    """The judge itself is broken; nothing is said of the answers."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer to judge.

    Attributes:
        benchmark: registry name.
        problem: what was asked, with its gold.
        text: the whole answer.
    """

    benchmark: str
    problem: Problem
    text: str


Outcome = Verdict | JudgeError
_Numbered = tuple[int, Judgement]

_PROBLEM = tuple(field.name for field in dataclasses.fields(Problem))


class JudgePool:
    """Runs judges in processes of their own.

    Plain subprocesses and not multiprocessing: they start alike from any thread or daemon, import
    nothing of the caller's main module, and one of them can be killed without the others.

    A judgement that uses up its processor time, needs too much memory or kills its process is a
    wrong answer with that reason; the process limits itself, and where it cannot (a computation
    that never returns to Python) it is killed and the answer tried once more in a fresh one.

    Args:
        processes: how many at most; by default one for each usable core.
        command: what to run, for tests.
    """

    def __init__(self, processes: int | None = None, command: Sequence[str] = COMMAND) -> None:
        self._processes = processes or len(os.sched_getaffinity(0))
        self._command = tuple(command)

    def judge(self, judgements: Iterable[Judgement]) -> list[Outcome]:
        """Judge all, in the given order.

        Args:
            judgements: taken as they are needed, a few hundred ahead, so that their texts need not
                be in memory at once; one at a time, though from several threads.

        Returns:
            For each a verdict, or the error of a broken judge.

        Raises:
            JudgeError: the processes cannot be started.
            Exception: whatever the judgements raise.
        """
        work = _Work(judgements, self._processes)
        outcomes: dict[int, Outcome] = {}
        errors: list[BaseException] = []

        def serve() -> None:
            try:
                _Server(self._command, outcomes).serve(work)
            except BaseException as error:  # noqa: BLE001 (handed to the caller's thread)
                errors.append(error)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(work.processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [outcomes[index] for index in sorted(outcomes)]


class _Work:
    """Numbered judgements, handed out in chunks that get smaller towards the end.

    Attributes:
        processes: how many are worth their start.
    """

    def __init__(self, judgements: Iterable[Judgement], most: int) -> None:
        self._source = enumerate(judgements)
        self._most_ahead = CHUNK * SHARE * most
        self._lock = threading.Lock()
        self._ahead: deque[_Numbered] = deque()
        self._look()
        self.processes = min(most, -(-len(self._ahead) // ANSWERS_PER_PROCESS))

    def take(self) -> list[_Numbered]:
        """Return the next chunk, empty at the end."""
        with self._lock:
            size = max(1, min(CHUNK, len(self._ahead) // (SHARE * self.processes)))
            chunk = [self._ahead.popleft() for _ in range(min(size, len(self._ahead)))]
            self._look()
            return chunk

    def _look(self) -> None:
        wanted = self._most_ahead - len(self._ahead)
        self._ahead.extend(itertools.islice(self._source, wanted))


class _Server:
    """One thread's process, renewed when it dies."""

    def __init__(self, command: Sequence[str], outcomes: dict[int, Outcome]) -> None:
        self._command = command
        self._outcomes = outcomes
        self._process: _JudgeProcess | None = None

    def serve(self, work: _Work) -> None:
        try:
            while chunk := work.take():
                self._serve_chunk(chunk)
        finally:
            self._stop()

    def _serve_chunk(self, chunk: list[_Numbered]) -> None:
        waiting = deque(chunk)
        # A process that dies may have judged answers that it had not told of, so from then on one
        # is sent at a time: who is alone with a process that dies, twice, is guilty.
        careful = False
        suspect: int | None = None
        while waiting:
            process = self._process = self._process or _JudgeProcess(self._command)
            sent = [waiting[0]] if careful else list(waiting)
            try:
                process.send(sent)
                for index, _ in sent:
                    self._outcomes[index] = process.receive(index)
                    waiting.popleft()
            except _ProcessLost as lost:
                self._stop()
                if careful and suspect == waiting[0][0]:
                    self._outcomes[suspect] = Verdict(False, None, f"the judge {lost}")
                    waiting.popleft()
                suspect = waiting[0][0] if careful and waiting else None
                careful = True

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


class _ProcessLost(Exception):  # noqa: N818 (an event, not an error of ours)
    pass


class _JudgeProcess:
    def __init__(self, command: Sequence[str]) -> None:
        # Closed by stop(), with the process.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
        )
        self._lines: deque[bytes] = deque()
        self._buffer = b""
        self._problem: Problem | None = None
        try:
            self._read_line(self._within_wall(START_SECONDS))
        except _ProcessLost as lost:
            said = self._last_words()
            self.stop()
            raise JudgeError(f"The judging process could not start: it {lost}. {said}") from None

    def send(self, items: Sequence[_Numbered]) -> None:
        lines = []
        for place, (index, item) in enumerate(items, start=1):
            request = {
                "id": index,
                "benchmark": item.benchmark,
                "text": item.text,
                "last": place == len(items),
            }
            # A problem's repeats follow each other, and its hidden tests may be megabytes.
            if item.problem is not self._problem:
                self._problem = item.problem
                request["problem"] = {name: getattr(item.problem, name) for name in _PROBLEM}
            lines.append(json.dumps(request))
        stdin = self._process.stdin
        if stdin is None:
            raise _ProcessLost("has no input")
        try:
            stdin.write(("\n".join(lines) + "\n").encode())
            stdin.flush()
        except OSError:
            raise _ProcessLost("process died") from None

    def receive(self, index: int) -> Outcome:
        reply = json.loads(self._read_line(self._within_cpu()))
        if reply["id"] != index:
            raise JudgeError(f"The judge answered {reply['id']} when asked for {index}.")
        if "failure" in reply:
            return JudgeError(reply["failure"])
        return Verdict(**reply["verdict"])

    def _read_line(self, alive: Callable[[float], None]) -> bytes:
        stdout = self._process.stdout
        if stdout is None:
            raise _ProcessLost("has no output")
        waited = 0.0
        while not self._lines:
            if not select.select([stdout], [], [], _POLL_SECONDS)[0]:
                waited += _POLL_SECONDS
                alive(waited)
                continue
            data = os.read(stdout.fileno(), 2**16)
            if not data:
                raise _ProcessLost("process died")
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._lines.extend(lines)
        return self._lines.popleft()

    def _within_wall(self, limit: float) -> Callable[[float], None]:
        def alive(waited: float) -> None:
            if waited > limit:
                raise _ProcessLost(f"said nothing for {limit:g} s")

        return alive

    def _within_cpu(self) -> Callable[[float], None]:
        """Allow processor time and ample wall time: a busy machine changes no verdict."""
        started: list[float] = []

        def alive(waited: float) -> None:
            if waited > KILL_WALL_SECONDS:
                raise _ProcessLost(f"said nothing for {KILL_WALL_SECONDS:g} s and was killed")
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(self._process.pid).cpu_times()
                used = times.user + times.system
                started.append(used)
                if used - started[0] > KILL_CPU_SECONDS:
                    raise _ProcessLost(f"took more than {KILL_CPU_SECONDS:g} s and was killed")

        return alive

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                # A killed process leaves a broken pipe behind what was not yet written.
                with contextlib.suppress(OSError):
                    stream.close()


def _environment() -> dict[str, Any]:
    """Hand down what Python needs and nothing that may hold a secret."""
    kept = {
        name: value
        for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "NIGHTSHARD_BENCHMARKS")
        if (value := os.environ.get(name)) is not None
    }
    inherited = os.environ.get("PYTHONPATH", "")
    paths = [str(_PACKAGES), *filter(None, inherited.split(os.pathsep))]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
