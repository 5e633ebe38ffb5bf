"""One question a cluster: everything about all watched shards in one remote command. Pure.

The answer is in sections, each begun by a line with the poll's nonce, and it ends with one. So a
cut line is noticed, whatever the exit status says, and no file's content can pass for a section.
"""

import shlex
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nightshard.clusters.commands import accounting_disabled, sacct_command, squeue_command
from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.poll_program import FILE_KINDS, MAX_FILE_BYTES, PROGRAM, words
from nightshard.clusters.sections import split_sections
from nightshard.clusters.slurm import (
    Row,
    ShardState,
    compress_indices,
    parse_sacct,
    parse_squeue,
)
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob

SQUEUE_TIMEOUT_S = 50
SACCT_TIMEOUT_S = 10
"""Bounds where ``timeout`` exists. Measured on Slurm 22.05: ``sacct`` says at once that slurmdbd
refuses connections, and waits 45 s for one that accepts them and is silent."""

TIMED_OUT = "124"
"""Exit status of ``timeout`` (coreutils)."""

Element = tuple[str, str, int | None]
"""Slurm cluster (empty for the login node's own), array id, index."""


class Accounts(StrEnum):
    """What became of the question to sacct."""

    NOT_ASKED = "not asked"
    ANSWERED = "answered"
    DISABLED = "disabled"
    DOWN = "down"


class Look(StrEnum):
    """How closely a poll looks at a shard; of one that has ended it always brings every file.

    Attributes:
        FIRST: bring every file, whatever Slurm says.
        MISSING: it was in no listing before: worth a question to sacct even if squeue is silent.
        PROGRESS: bring its progress if it runs.
        QUEUE: bring nothing while Slurm says that it is alive.
    """

    FIRST = "f"
    MISSING = "m"
    PROGRESS = "p"
    QUEUE = "q"


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """What one poll brought.

    Attributes:
        complaints: what squeue said, by the Slurm cluster for which it did not answer; there a
            missing row means nothing.
        queue: rows of the watched jobs by element.
        accounts_state: what became of the question to sacct.
        accounts: rows of the watched jobs by element.
        files: text by kind of file, by job name and rank; a file that does not exist or was not
            worth reading is not among them.
    """

    complaints: Mapping[str, str]
    queue: Mapping[Element, Row]
    accounts_state: Accounts
    accounts: Mapping[Element, Row]
    files: Mapping[tuple[str, int], Mapping[str, str]]

    def files_of(self, shard: WatchedShard) -> Mapping[str, str]:
        """Return the text of each kind of a shard's files."""
        return self.files.get((shard.job.name, shard.rank), {})


def element_of(shard: WatchedShard) -> Element:
    """Return the key of a shard's rows."""
    return shard.job.cluster or "", *shard.element


def shard_files(shard: WatchedShard) -> tuple[str, ...]:
    """Return the names, within the run's folder, of :data:`FILE_KINDS`."""
    layout, attempt = shard.layout, shard.job.attempt
    paths = (
        layout.progress(shard.rank),
        layout.exit_record(shard.rank, attempt),
        layout.manifest(shard.rank, shard.world_size),
        layout.attempt_record(shard.rank, attempt),
    )
    return tuple(str(path.relative_to(layout.run)) for path in paths)


def poll_script(
    looks: Iterable[tuple[WatchedShard, Look]], nonce: str, *, accounts: bool = True
) -> str:
    """Build the script of one poll, for the standard input of a remote ``sh -s``.

    It asks squeue first. Only where an element is not listed does it ask sacct, and only for such
    jobs.

    Args:
        looks: the shards, and how closely to look at each.
        nonce: random, and never the same twice.
        accounts: sacct may be asked.
    """
    table = "\n".join([f"N|{nonce}", *_table(looks, accounts=accounts)])
    return "\n".join(
        [
            "LC_ALL=C; export LC_ALL",
            f"awk -v most={MAX_FILE_BYTES} '{PROGRAM}' <<'{nonce}'",
            table,
            nonce,
            f"printf '\\n@{nonce} awk-status %s\\n\\n@{nonce} end\\n' \"$?\"",
            "",
        ]
    )


def _table(looks: Iterable[tuple[WatchedShard, Look]], *, accounts: bool) -> Iterator[str]:
    """Yield the lines that :data:`~nightshard.clusters.poll_program.PROGRAM` reads."""
    jobs: dict[tuple[RunLayout, ArrayJob, int, Look], list[WatchedShard]] = {}
    for shard, look in looks:
        jobs.setdefault((shard.layout, shard.job, shard.world_size, look), []).append(shard)
    clusters = sorted({shards[0].job.cluster or "" for shards in jobs.values()})
    yield f"W|{words(ShardState.WAITING)}"
    yield f"L|{words(ShardState.RUNNING)}"
    for at, cluster in enumerate(clusters):
        yield f"C|{at}|{cluster}"
        yield f"S|{at}|{_limited(SQUEUE_TIMEOUT_S, squeue_command(cluster=cluster or None))}"
        if accounts:
            command = sacct_command(job_ids=["@IDS@"], cluster=cluster or None)
            yield f"D|{at}|{_limited(SACCT_TIMEOUT_S, command)}"
    for (*_, look), shards in jobs.items():
        one = shards[0]
        job, digits = one.job, f"{one.rank:05d}"
        patterns = [name.replace(digits, "%05d", 1) for name in shard_files(one)]
        ranks = compress_indices(shard.rank for shard in shards)
        at = clusters.index(job.cluster or "")
        yield f"R|{one.layout.run}"
        place = [job.first_rank, job.per_job]
        yield "|".join(map(str, ["J", at, job.job_id, job.name, *place, look, ranks, *patterns]))


def _limited(seconds: int, command: Sequence[str]) -> str:
    line = shlex.join(command)
    limited = f"timeout {seconds} {line}"
    return f"if command -v timeout >/dev/null 2>&1; then {limited}; else {line}; fi"


@dataclass(slots=True)
class _Reading:
    """State of a walk over an answer's sections."""

    cluster: str = ""
    text: str = ""
    queue: dict[Element, Row] = field(default_factory=dict)
    accounts: dict[Element, Row] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)
    asked: list[Accounts] = field(default_factory=list)
    files: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    awk_status: str = ""
    complete: bool = False


def parse_poll(text: str, nonce: str, names: Container[str] | None = None) -> PollAnswer:
    """Read a poll's answer.

    Args:
        text: what the script printed.
        nonce: the script's.
        names: job names that are watched; rows of others are passed over. None passes over none.

    Raises:
        TransportError: the answer is cut off, or the files could not be read.
    """
    reading = _Reading()
    for title, body in split_sections(text, nonce):
        _read_section(reading, title, body, names)
    if not reading.complete:
        raise TransportError("The answer of the cluster was cut off.")
    if reading.awk_status != "0":
        raise TransportError(
            f"The cluster could not be asked: its awk ended with status {reading.awk_status}."
        )
    return PollAnswer(
        complaints=reading.complaints,
        queue=reading.queue,
        accounts_state=_worst(reading.asked),
        accounts=reading.accounts,
        files=reading.files,
    )


def _read_section(reading: _Reading, title: str, body: str, names: Container[str] | None) -> None:
    name, _, rest = title.partition(" ")
    match name:
        case "squeue" | "sacct":
            reading.cluster, reading.text = rest, body
        case "squeue-status" if rest == "0":
            rows = parse_squeue(reading.text, names)
            reading.queue.update(_by_element(reading.cluster, rows))
        case "squeue-status":
            reading.complaints[reading.cluster] = _complaint(reading.text, rest)
        case "sacct-status":
            rows = parse_sacct(reading.text, names)
            reading.accounts.update(_by_element(reading.cluster, rows))
            reading.asked.append(_accounts_state(rest, reading.text))
        case "files":
            _read_files(body, reading.files)
        case "awk-status":
            reading.awk_status = rest
        case "end":
            reading.complete = True


def _complaint(text: str, status: str) -> str:
    if status == TIMED_OUT:
        return f"squeue did not answer within {SQUEUE_TIMEOUT_S} s"
    return " ".join(text.split())[-500:] or f"squeue ended with status {status}"


def _read_files(body: str, files: dict[tuple[str, int], dict[str, str]]) -> None:
    job = ""
    for line in body.split("\n"):
        if line.startswith("="):
            job = line[1:]
            continue
        head, colon, content = line.partition(":")
        rank, space, kind = head.partition(" ")
        if colon and space:
            texts = files.setdefault((job, int(rank)), {})
            what = FILE_KINDS[int(kind) - 1]
            texts[what] = f"{texts[what]}\n{content}" if what in texts else content


def _accounts_state(status: str, text: str) -> Accounts:
    if status == "0":
        return Accounts.ANSWERED
    return Accounts.DISABLED if accounting_disabled(text) else Accounts.DOWN


def _worst(states: Sequence[Accounts]) -> Accounts:
    order = list(Accounts)
    return max(states, key=order.index, default=Accounts.NOT_ASKED)


def _by_element(cluster: str, rows: Iterable[Row]) -> dict[Element, Row]:
    return {(cluster, row.array_id, row.index): row for row in rows}
