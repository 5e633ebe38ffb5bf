"""The program of a poll, run without a shell: what its table asks for, answered from memory."""

import asyncio
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.simulation.world import World

from nightshard.clusters.poll_program import PROGRAM
from nightshard.clusters.slurm import SACCT_FORMAT, SQUEUE_FORMAT, expand_indices
from nightshard.clusters.transport import CommandResult

Program = Callable[[Sequence[str]], CommandResult]
_FILES = 4


@dataclass(slots=True)
class _Job:
    """A line ``J`` of the table."""

    run: str
    cluster: int
    array_id: str
    name: str
    first: int
    per_job: int
    look: str
    ranks: list[int]
    patterns: list[str]

    def path(self, kind: int, rank: int) -> str:
        return f"{self.run}/{self.patterns[kind - 1] % rank}"

    def element(self, rank: int) -> tuple[str, int, str]:
        return self.array_id, (rank - self.first) // self.per_job, self.name


@dataclass(slots=True)
class PollReader:
    """Answers one poll as ``PROGRAM`` does; time passes between its commands.

    Args:
        world: surroundings.
        slurm: runs squeue or sacct.
        read: lines of a file as this login node sees it, None where it sees none.
    """

    world: World
    slurm: Program
    read: Callable[[str], list[str] | None]
    out: list[str] = field(default_factory=list)

    async def answer(self, script: str) -> CommandResult:
        """Run a poll's script."""
        head, found, rest = script.partition(PROGRAM)
        table, _, tail = rest.partition("\nprintf ")
        nonce = table.rpartition("\n")[2]
        if not found or "awk" not in head or f"@{nonce} end" not in tail:
            self.world.violation(f"a poll of another form: {script[:200]}")
        jobs, clusters = self._read_table(table.split("\n")[1:-1])
        for at, (label, squeue, sacct) in enumerate(clusters):
            here = [job for job in jobs if job.cluster == at]
            await self._ask_squeue(nonce, at, label, squeue, here)
            await self._ask_sacct(nonce, label, sacct, here)
        self._title(nonce, "files")
        for job, brought in self._chosen(jobs):
            self.out.append(f"={job.name}\n")
            for rank, kinds in brought:
                await asyncio.sleep(self.world.rng.uniform(0, 0.05))
                self._bring(job, rank, kinds)
        self._title(nonce, "awk-status 0")
        self._title(nonce, "end")
        return CommandResult("".join(self.out), "", 0)

    def _read_table(self, lines: Sequence[str]) -> tuple[list[_Job], list[tuple[str, str, str]]]:
        jobs: list[_Job] = []
        clusters: list[tuple[str, str, str]] = []
        run = ""
        for line in lines:
            kind, _, rest = line.partition("|")
            words = line.split("|")
            match kind:
                case "N":
                    pass
                case "W":
                    self._waiting = set(rest.split())
                case "L":
                    self._living = set(rest.split())
                case "C":
                    clusters.append((words[2], "", ""))
                case "S":
                    label, _, sacct = clusters[-1]
                    clusters[-1] = (label, rest.partition("|")[2], sacct)
                case "D":
                    label, squeue, _ = clusters[-1]
                    clusters[-1] = (label, squeue, rest.partition("|")[2])
                case "R":
                    run = rest
                case "J":
                    jobs.append(
                        _Job(run, int(words[1]), words[2], words[3], int(words[4]), int(words[5]),
                             words[6], expand_indices(words[7]), words[8:])
                    )  # fmt: skip
                case _:
                    self.world.violation(f"unknown line in the poll: {line}")
        return jobs, clusters

    _waiting: set[str] = field(default_factory=set)
    _living: set[str] = field(default_factory=set)
    _silent: set[int] = field(default_factory=set)
    _seen: dict[tuple[str, int, str], str] = field(default_factory=dict)
    _over: set[tuple[str, int, str]] = field(default_factory=set)

    async def _ask_squeue(
        self, nonce: str, at: int, label: str, line: str, jobs: Sequence[_Job]
    ) -> None:
        names = {job.name for job in jobs}
        status, text = self._run(nonce, "squeue", label, line)
        if status:
            self._silent.add(at)
        for words in (line.split("|") for line in text.splitlines()):
            if len(words) == SQUEUE_FORMAT.count("|") + 1 and words[9] in names:
                for index in expand_indices(words[0].partition("_")[2]):
                    self._seen[words[1], index, words[9]] = words[4]
        await asyncio.sleep(self.world.rng.choice([0.0, 0.1, 2.0]))

    async def _ask_sacct(self, nonce: str, label: str, line: str, jobs: Sequence[_Job]) -> None:
        names = {job.name for job in jobs}
        missing = sorted(
            {job.array_id for job in jobs for rank in job.ranks if self._is_missing(job, rank)}
        )
        if not line or not missing:
            return
        _, text = self._run(nonce, "sacct", label, line.replace("@IDS@", ",".join(missing)))
        for words in (line.split("|") for line in text.splitlines()):
            element = re.fullmatch(r"(\d+)_(\d+)", words[0])
            ours = len(words) == SACCT_FORMAT.count(",") + 1 and words[7] in names
            if element and ours and not self._lives(words[2].partition(" ")[0]):
                self._over.add((element[1], int(element[2]), words[7]))
        await asyncio.sleep(self.world.rng.choice([0.0, 0.1, 2.0]))

    def _is_missing(self, job: _Job, rank: int) -> bool:
        # A queue that is silent has forgotten nothing.
        if job.cluster in self._silent:
            return job.look == "m"
        return job.element(rank) not in self._seen

    def _run(self, nonce: str, program: str, label: str, line: str) -> tuple[int, str]:
        found = re.search(rf"then timeout \d+ ({program} .*?); else", line)
        if found is None:
            self.world.violation(f"unknown command in the poll: {line}")
            return 127, ""
        result = self.slurm(shlex.split(found[1]))
        text = result.stderr + result.stdout
        self._title(nonce, f"{program} {label}")
        self.out.append(text)
        self._title(nonce, f"{program}-status {result.exit_status}")
        return result.exit_status, text

    def _lives(self, word: str) -> bool:
        return word in self._waiting | self._living

    def _chosen(self, jobs: Sequence[_Job]) -> list[tuple[_Job, list[tuple[int, int]]]]:
        """Return, for each job, its ranks and how many kinds of file to bring of each."""
        return [
            (job, [(rank, kinds) for rank in job.ranks if (kinds := self._kinds(job, rank))])
            for job in jobs
        ]

    def _kinds(self, job: _Job, rank: int) -> int:
        key = job.element(rank)
        if job.cluster in self._silent:
            return _FILES if key in self._over else 0
        word = self._seen.get(key, "")
        if not self._lives(word):
            return _FILES
        if job.look == "f":
            return _FILES
        return 1 if job.look != "q" and word in self._living else 0

    def _bring(self, job: _Job, rank: int, kinds: int) -> None:
        for kind in range(1, kinds + 1):
            for line in self.read(job.path(kind, rank)) or ():
                self.out.append(f"{rank} {kind}:{line}\n")

    def _title(self, nonce: str, text: str) -> None:
        self.out.append(f"\n@{nonce} {text}\n")
