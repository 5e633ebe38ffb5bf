"""Starting daemons, finding what belongs to a cluster, and stopping it without touching others."""

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from nightshard.core.errors import NightshardError, UserError

MARKER = "NIGHTSHARD_LOCAL_CLUSTER"
"""Environment variable that every process of a cluster carries; its value is the root folder."""

FIRST_PORT, LAST_PORT = 18000, 31999
"""Ports are drawn from here: below Linux's ephemeral range, so no client connection takes them."""

# A short-lived interpreter starts the daemon in a session of its own and prints its id. The daemon
# then belongs to init, so a caller that lives on (pytest, Airflow) collects no zombies.
_LAUNCHER = """
import os, signal, sys
log, *argv = sys.argv[1:]
os.umask(0o022)
out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
null = os.open(os.devnull, os.O_RDONLY)
actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out, 1),
           (os.POSIX_SPAWN_DUP2, out, 2)]
print(os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True,
                     setsigmask=[], setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]))
"""


class DaemonError(NightshardError):
    """A daemon ended, or did not answer in time; the message ends with its last log lines."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process by id and start, so that a reused id is never taken for it.

    Attributes:
        pid: process id.
        started: field 22 of ``/proc/<pid>/stat``, clock ticks since boot.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Identify a running process; None where there is none (a zombie counts as none)."""
        fields = _stat(pid)
        if fields is None or fields[0] in {"Z", "X"}:
            return None
        return cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        return Process.of(self.pid) == self

    def send(self, signum: int) -> None:
        """Signal the process if it still runs."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` from the state on; names may hold brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def start(argv: Sequence[str | Path], env: Mapping[str, str], log: Path) -> Process:
    """Start a daemon in a session of its own, its output appended to ``log``.

    Raises:
        DaemonError: the program could not be started, or ended at once.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(log), *map(str, argv)]
    done = subprocess.run(
        launcher, env=dict(env), cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise DaemonError(f"{Path(argv[0]).name} could not be started: {reason}")
    process = Process.of(int(done.stdout))
    if process is None:
        raise DaemonError(f"{Path(argv[0]).name} ended at once: {log_tail(log)}")
    return process


def log_tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log, joined by `` | ``; empty where there is none."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:])


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    alive: Callable[[], bool] = lambda: True,
    log: Path | None = None,
    timeout: float = 30.0,
) -> None:
    """Wait for ``ready`` at intervals of 20 ms, as long as ``alive`` holds.

    Raises:
        DaemonError: ``alive`` failed or ``timeout`` seconds passed.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        tail = f": {log_tail(log)}" if log is not None else ""
        if not alive():
            raise DaemonError(f"{what} ended while starting{tail}")
        if time.monotonic() > deadline:
            raise DaemonError(f"{what} did not answer within {timeout:.0f} seconds{tail}")
        time.sleep(0.02)


def port_is_free(port: int, host: str = "") -> bool:
    """Tell whether a daemon could listen on a TCP port (of every address by default)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int, avoid: Iterable[int] = ()) -> list[int]:
    """Draw distinct free TCP ports at random, so that two clusters seldom draw the same.

    Raises:
        UserError: the range holds too few free ports.
    """
    found: list[int] = []
    taken = set(avoid)
    # Random draws spread clusters over the range; nothing secret hangs on them.
    for port in random.sample(range(FIRST_PORT, LAST_PORT + 1), LAST_PORT + 1 - FIRST_PORT):
        if len(found) == count:
            break
        if port not in taken and port_is_free(port):
            found.append(port)
    if len(found) < count:
        raise UserError(
            f"Only {len(found)} of {count} needed ports between {FIRST_PORT} and {LAST_PORT} "
            "are free; stop some of the programs that listen there."
        )
    return found


def free_port() -> int:
    """Draw one free TCP port.

    Raises:
        UserError: see :func:`free_ports`.
    """
    return free_ports(1)[0]


def accepts_tcp(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether something listens on a TCP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def accepts_unix(path: Path) -> bool:
    """Tell whether something listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's exclusive lock, waiting for another holder to let go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def all_pids() -> list[int]:
    """List the ids of all processes that ``/proc`` shows."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def environment_of(pid: int) -> frozenset[bytes]:
    """Return a process's environment as it began; empty where it is not ours to read."""
    try:
        return frozenset(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def marked(root: Path, slurm_conf: Path) -> set[int]:
    """Find the processes that carry a cluster's marker, and the jobs of its Slurm.

    A person's own shell with ``SLURM_CONF`` set is neither: only a job has ``SLURM_JOB_ID`` too.
    """
    marker = f"{MARKER}={root}".encode()
    conf = f"SLURM_CONF={slurm_conf}".encode()
    found = set()
    for pid in all_pids():
        environment = environment_of(pid)
        in_job = conf in environment and any(v.startswith(b"SLURM_JOB_ID=") for v in environment)
        if marker in environment or in_job:
            found.add(pid)
    return found


def descendants(pids: Iterable[int]) -> set[int]:
    """Return the given processes and all their children's children."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        fields = _stat(pid)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, []))
    return found


def ssh_sessions(port: int | None) -> set[int]:
    """Find the sshd processes that serve a connection to a port whose listener has ended.

    They hold no marker: sshd overwrites its environment with the title that ``ps`` shows. Where
    something listens on the port, it is another program's by now, and so are its sessions.
    """
    if port is None or not port_is_free(port):
        return set()
    found = set()
    for process in psutil.process_iter(["name"]):
        if not str(process.info["name"]).startswith("sshd"):
            continue
        with contextlib.suppress(psutil.Error):
            if any(c.laddr and c.laddr.port == port for c in process.net_connections("tcp")):
                found.add(process.pid)
    return found


def step_daemons(folder: Path) -> set[int]:
    """Find the slurmstepd processes whose socket lies under ``folder``.

    Like sshd they overwrite their environment, and they outlive a slurmd that was killed.
    """
    inodes = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith(f"{folder}/"):  # noqa: PLR2004
            inodes.add(f"socket:[{fields[6]}]")
    found = set()
    for process in psutil.process_iter(["name"]):
        if str(process.info["name"]).startswith("slurmstepd"):
            with contextlib.suppress(OSError):
                links = {str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()}
                if links & inodes:
                    found.add(process.pid)
    return found


def own_lineage() -> set[int]:
    """Return this process and its ancestors, which a cluster must never stop."""
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
    return found


def identify(pids: Iterable[int]) -> list[Process]:
    """Turn ids into processes, leaving out those that ended and this process's own lineage."""
    mine = own_lineage()
    return [p for pid in sorted(pids) if pid not in mine and (p := Process.of(pid)) is not None]


def stop(processes: Sequence[Process], *, grace: float = 5.0) -> None:
    """End processes: SIGTERM to all, SIGKILL to what is left after ``grace`` seconds."""
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in processes:
            process.send(signum)
        deadline = time.monotonic() + patience
        while any(p.alive() for p in processes) and time.monotonic() < deadline:
            time.sleep(0.02)
