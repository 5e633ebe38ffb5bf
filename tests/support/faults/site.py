"""A local cluster that can be broken: daemons die, programs on the login node misbehave."""

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from nightshard.local import cluster as local_cluster
from nightshard.local.cluster import LocalCluster
from nightshard.local.info import ClusterInfo
from nightshard.local.processes import Process, all_pids
from nightshard.local.slurm_config import Overrides

_session_environment = local_cluster.session_environment


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Await a condition of the outside world, such as a file or a line of squeue."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 (files send no event)
                await asyncio.sleep(0.03)
    except TimeoutError:
        raise AssertionError(f"it never happened within {timeout_s:g} s that {what}") from None


class Site:
    """One cluster, and the hands of its administrator.

    Args:
        root: its folder.
        accounting: with slurmdbd.
        overrides: Slurm's settings.
    """

    def __init__(
        self, root: Path, accounting: bool = False, overrides: Overrides | None = None
    ) -> None:
        self.cluster = LocalCluster(root, accounting, overrides or Overrides())
        self.shims = root / "shims"
        self.info: ClusterInfo

    def up(self) -> None:
        """Start it, or start again what died."""
        self.shims.mkdir(parents=True, exist_ok=True)

        def with_shims(*arguments: object) -> Mapping[str, str]:
            found = _session_environment(*arguments)  # type: ignore[arg-type]
            return {**found, "PATH": f"{self.shims}:{found['PATH']}"}

        with mock.patch.object(local_cluster, "session_environment", with_shims):
            self.info = self.cluster.up()

    def down(self) -> None:
        """Stop it and remove its folder."""
        self.cluster.down()
        shutil.rmtree(self.cluster.root, ignore_errors=True)

    def daemon(self, name: str) -> Process:
        """Return a daemon that runs."""
        return self.cluster.layout.processes()[name]

    async def kill(self, name: str, signum: int = signal.SIGTERM) -> None:
        """End a daemon, and wait until it is gone."""
        process = self.daemon(name)
        process.send(signum)
        await until(lambda: not process.alive(), f"{name} ended")

    async def mend(self) -> None:
        """Start again what died."""
        await asyncio.to_thread(self.up)

    async def return_to_service(self, node: str) -> None:
        """Let a node that was set down work again."""

        def answers() -> bool:
            self.ask("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            return node in self.cluster.answering_nodes(self.info)

        await until(answers, f"{node} returned")

    def ask(self, *command: str, check: bool = True) -> str:
        """Run a Slurm command on the spot, past every connection; its output."""
        done = subprocess.run(
            [self.info.bin_dirs[0] / command[0], *command[1:]],
            env=self.info.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self, key: str, *, ended: bool = False) -> dict[str, str]:
        """Return the state of each array element whose job name begins with a run's key."""
        states = ["--states=all"] if ended else []
        text = self.ask("squeue", "--array", "--noheader", "--format=%i %T %j", *states)
        rows = [line.split() for line in text.splitlines()]
        return {job: state for job, state, name in rows if name.startswith(f"ns-{key}-")}

    def arrays(self, name: str) -> set[str]:
        """Return the arrays that Slurm remembers under a job name."""
        text = self.ask("squeue", "--noheader", "--states=all", "--format=%F", f"--name={name}")
        return set(text.split())

    @contextmanager
    def shim(self, program: str, body: str) -> Iterator[Path]:
        """Put a script before a program of the login node; it gets ``$real`` and ``$state``.

        Yields:
            The folder ``$state``, for files by which script and test wait for each other.
        """
        real = shutil.which(program, path=self.info.environment()["PATH"])
        state = self.shims / f"{program}.state"
        state.mkdir()
        path = self.shims / program
        path.write_text(f"#!/bin/bash\nreal={real}\nstate={state}\n{body}\n")
        path.chmod(0o755)
        try:
            yield state
        finally:
            path.unlink()
            shutil.rmtree(state)


def workers(run_folder: Path) -> list[Process]:
    """Find the worker processes of a run, whoever started them."""
    found = []
    for pid in all_pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = str(run_folder).encode() in words and b"--run-dir" in words
        if ours and (process := Process.of(pid)) is not None:
            found.append(process)
    return found


def worker_of(run_folder: Path, rank: int, attempt: int = 1) -> Process:
    """Find the worker process of one attempt."""
    wanted = {b"--rank": str(rank), b"--attempt": str(attempt)}
    for process in workers(run_folder):
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        if all(words[words.index(flag) + 1].decode() == value for flag, value in wanted.items()):
            return process
    raise AssertionError(f"no worker of rank {rank}, attempt {attempt}")


def frozen(process: Process) -> bool:
    """Whether a process has been stopped by SIGSTOP."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return re.search(r"^State:\s+T", status, re.MULTILINE) is not None


@contextmanager
def standing_still(*processes: Process) -> Iterator[None]:
    """Keep processes from doing anything meanwhile."""
    for process in processes:
        process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send(signal.SIGCONT)
