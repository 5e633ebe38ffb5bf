"""What Slurm did while a test ran, seen often enough that no job is missed."""

import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from support.stack import Stack

LOOK_S = 0.5


class SlurmWatch:
    """Every job that was seen, by its name and id, with all the states it was seen in."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def look(self, stack: Stack) -> None:
        """Add what the cluster knows now; ended jobs are known for a while."""
        for line in stack.squeue():
            job_id, name, state = line.split()
            self._seen[name][job_id].add(state)

    def arrays(self, run_key: str) -> dict[str, set[str]]:
        """Return a run's arrays by the names of their jobs: ``ns-<run_key>-a1`` and so on."""
        return {
            name: {job_id.partition("_")[0] for job_id in jobs}
            for name, jobs in self._seen.items()
            if name.startswith(f"ns-{run_key}-")
        }

    def states(self, run_key: str) -> set[str]:
        """Return all states in which any job of a run was seen."""
        return {
            state
            for name, jobs in self._seen.items()
            if name.startswith(f"ns-{run_key}-")
            for states in jobs.values()
            for state in states
        }


@contextmanager
def watched_slurm(stack: Stack) -> Iterator[SlurmWatch]:
    """Watch the cluster's queue until the block ends."""
    watch, stop = SlurmWatch(), threading.Event()

    def keep_looking() -> None:
        while not stop.wait(LOOK_S):
            with suppress(subprocess.CalledProcessError):
                watch.look(stack)

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()
        watch.look(stack)
