"""The login node's programs: what the code under test runs there, and nothing else."""

import hashlib
import re
import shlex
from collections.abc import Sequence

from support.simulation.poll_reader import PollReader
from support.simulation.queue import Element, Queue, parse_directives
from support.simulation.world import World

from nightshard.clusters.slurm import SACCT_FORMAT, SQUEUE_FORMAT
from nightshard.clusters.transport import CommandResult

ACCOUNTS_OFF = "Slurm accounting storage is disabled\n"
ACCOUNTS_DOWN = (
    "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to "
    "host:127.0.0.1:6819: Connection refused\nsacct: error: Problem talking to the database: "
    "Connection refused\n"
)
TIMED_OUT = "Socket timed out on send/recv operation"
NO_CONTROLLER = "Unable to contact slurm controller (connect failure)"


class UnknownCommandError(AssertionError):
    """The code under test ran something that the simulation does not know."""


class LoginNode:
    """Runs commands for one login.

    Args:
        world: surroundings.
        queue: Slurm.
        host: which login node; it has its own view of the file system.
    """

    def __init__(self, world: World, queue: Queue, host: str) -> None:
        self.world, self.queue, self.host = world, queue, host

    async def run(self, words: Sequence[str], stdin: str | None) -> CommandResult:
        """Run one command.

        Raises:
            UnknownCommandError: there is no such program here.
        """
        if list(words) == ["sh", "-s"] and stdin:
            return await PollReader(self.world, self._listing, self._lines).answer(stdin)
        result = self._program(words)
        if result is not None:
            return result
        self.world.violation(f"unknown command {shlex.join(words)}")
        raise UnknownCommandError(shlex.join(words))

    def _program(self, words: Sequence[str]) -> CommandResult | None:
        result = None
        match list(words):
            case ["sbatch", "--parsable", script]:
                result = self._sbatch(script)
            case ["squeue", *options]:
                result = self._squeue(options)
            case ["sacct", *options]:
                result = self._sacct(options)
            case ["scancel", *arguments]:
                result = self._scancel(arguments)
            case ["sha256sum", "--", path]:
                result = self._sha256sum(path)
            case ["sh", "-c", _, "tail", path, _]:
                data = self._read(path)
                result = CommandResult(data.decode() if data else "", "", 0)
            case ["sh", "-c", _, "attempts", folder]:
                found = [
                    self._read(path) or b""
                    for path in self.world.disk.under(folder, self.host)
                    if re.search(r"/attempt-[^/]*\.json$", path)
                ]
                result = CommandResult(b"".join(found).decode(), "", 0)
        return result

    def _read(self, path: str) -> bytes | None:
        return self.world.disk.read(path, self.host)

    def _sbatch(self, path: str) -> CommandResult:
        world, rng = self.world, self.world.rng
        content = self._read(path)
        if content is None:
            return CommandResult("", f"sbatch: error: Unable to open file {path}\n", 1)
        options = parse_directives(content.decode())
        if not self.queue.answers:
            world.inject("slurmctld down at sbatch")
            return _sbatch_failed(NO_CONTROLLER)
        broken = not world.calm and rng.random() < world.scenario.faults.sbatch_rate
        kind = rng.choice(("timed_out", "lost", "odd_code", "refused")) if broken else "good"
        if kind == "lost":
            world.inject("sbatch timed out before acceptance")
            return _sbatch_failed(TIMED_OUT)
        if kind == "refused":
            world.inject("sbatch refused with a record")
            self.queue.reject(options["job-name"], options, path)
            return _sbatch_failed("Requested node configuration is not available")
        return self._accept(options, path, kind)

    def _accept(self, options: dict[str, str], path: str, kind: str) -> CommandResult:
        accepted = self.queue.submit(options["job-name"], options, path, self.host)
        if isinstance(accepted, str):
            return _sbatch_failed(accepted)
        if kind == "timed_out":
            self.world.inject("sbatch timed out after acceptance")
            return _sbatch_failed(TIMED_OUT)
        if kind == "odd_code":
            self.world.inject("sbatch failed with an id on stdout")
            return CommandResult(f"Welcome!\n{accepted}\n", "sbatch: spank: plugin failed\n", 1)
        return CommandResult(f"{accepted}\n", "", 0)

    def _squeue(self, options: Sequence[str]) -> CommandResult:
        given = _options(options)
        wanted = {"me", "array", "noheader", "states", "format"}
        if set(given) - {"name"} != wanted or given["format"] != SQUEUE_FORMAT:
            self.world.violation(f"unknown squeue {options}")
        if not self.queue.answers:
            self.world.inject("slurmctld down at squeue")
            return CommandResult("", f"slurm_load_jobs error: {NO_CONTROLLER}\n", 1)
        lines = [
            self._squeue_line(one)
            for one in self.queue.listed()
            if given.get("name") in {None, one.name}
        ]
        return CommandResult("".join(lines), "", 0)

    def _squeue_line(self, one: Element) -> str:
        end = one.ended or self.world.now
        used = 0 if one.started is None else int(end - one.started)
        shown = one.index if one.index is not None else one.options["array"]
        fields = [
            f"{one.array_id}_{shown if one.index is not None else f'[{shown}]'}",
            str(one.array_id),
            str(shown),
            str(one.raw_id),
            one.word,
            one.reason,
            one.node or "",
            "N/A" if one.started is None else self.world.cluster_time(one.started),
            f"{used // 3600}:{used // 60 % 60:02d}:{used % 60:02d}",
            one.name,
        ]
        return "|".join(fields) + "\n"

    def _sacct(self, options: Sequence[str]) -> CommandResult:
        given = _options(options)
        if given["format"] != SACCT_FORMAT or not {"name", "jobs"} & set(given):
            self.world.violation(f"unknown sacct {options}")
        site, now = self.world.scenario.site, self.world.now
        if site.accounts == "off":
            return CommandResult("", ACCOUNTS_OFF, 1)
        if any(a <= now < b for a, b in self.queue.accounts_down):
            self.world.inject("accounts down at sacct")
            return CommandResult("", ACCOUNTS_DOWN, 1)
        jobs = given.get("jobs", "").split(",")
        # Without --duplicates a recycled id shows its latest job only.
        latest: dict[str, str] = {}
        for one in self.queue.elements:
            wanted = given["name"] == one.name if "name" in given else str(one.array_id) in jobs
            known = [line for seen_at, line in one.accounts if seen_at <= now]
            if wanted and known:
                latest[one.id] = known[-1]
        return CommandResult("".join(f"{line}\n" for line in latest.values()), "", 0)

    def _scancel(self, arguments: Sequence[str]) -> CommandResult:
        given = _options([one for one in arguments if one.startswith("--")])
        jobs = [one for one in arguments if not one.startswith("--")]
        if not self.queue.answers:
            self.world.inject("slurmctld down at scancel")
            return CommandResult("", f"scancel: error: {NO_CONTROLLER}\n", 1)
        name = given.get("name")
        if name is None and not jobs:
            self.world.violation("scancel of everything")
        # With a filter an element that waits stands for all that wait in its array (measured).
        records = {job.partition("_")[0] for job in jobs} if name else set(jobs)
        chosen = [
            one
            for one in self.queue.listed()
            if one.live
            and name in {None, one.name}
            and (
                not jobs
                or one.id in jobs
                or str(one.array_id) in jobs
                or (one.word == "PENDING" and str(one.array_id) in records)
            )
        ]
        self.queue.cancel(chosen, self.host)
        return CommandResult("", "", 0)

    def _sha256sum(self, path: str) -> CommandResult:
        data = self._read(path)
        if data is None:
            return CommandResult("", f"sha256sum: {path}: No such file or directory\n", 1)
        return CommandResult(f"{hashlib.sha256(data).hexdigest()}  {path}\n", "", 0)

    def _listing(self, words: Sequence[str]) -> CommandResult:
        return (self._squeue if words[0] == "squeue" else self._sacct)(words[1:])

    def _lines(self, path: str) -> list[str] | None:
        data = self._read(path)
        if data is None:
            return None
        faults = self.world.scenario.faults
        if not self.world.calm and self.world.rng.random() < faults.torn_rate:
            self.world.inject("file read while it is written", path.rpartition("/")[2])
            data = data[: self.world.rng.randrange(len(data) + 1)]
        return data.decode().splitlines()


def _sbatch_failed(words: str) -> CommandResult:
    return CommandResult("", f"sbatch: error: Batch job submission failed: {words}\n", 1)


def _options(words: Sequence[str]) -> dict[str, str]:
    parts = (word.removeprefix("--").partition("=") for word in words)
    return {name: value for name, _, value in parts}
