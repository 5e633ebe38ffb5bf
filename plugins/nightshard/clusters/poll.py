"""One question a cluster: everything about all watched shards in one remote command. Pure.

The answer is in sections, each begun by a line with the poll's nonce, and it ends with one. So a
cut line is noticed, whatever the exit status says, and no file's content can pass for a section.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from nightshard.clusters.commands import accounting_disabled, sacct_command, squeue_command
from nightshard.clusters.errors import TransportError
from nightshard.clusters.slurm import Row, parse_sacct, parse_squeue
from nightshard.clusters.status import WatchedShard

FILES_PER_COMMAND = 500


class Accounts(StrEnum):
    """What became of the question to sacct."""

    NOT_ASKED = "not asked"
    ANSWERED = "answered"
    DISABLED = "disabled"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """What one poll brought.

    Attributes:
        queue_ok: squeue answered; if not, a missing row means nothing.
        queue: rows by array id and index.
        accounts_state: what became of the question to sacct.
        accounts: rows by array id and index.
        files: text by remote path; a file that does not exist is not among them.
        complaint: what squeue said if it did not answer.
    """

    queue_ok: bool
    queue: Mapping[tuple[str, int | None], Row]
    accounts_state: Accounts
    accounts: Mapping[tuple[str, int | None], Row]
    files: Mapping[PurePosixPath, str]
    complaint: str = ""


def shard_files(shard: WatchedShard) -> dict[str, PurePosixPath]:
    """Return the files that tell of a shard, by the name of the evidence that they are."""
    return {
        "progress": shard.layout.progress(shard.rank),
        "exit_record": shard.layout.exit_record(shard.rank, shard.job.attempt),
        "manifest": shard.layout.manifest(shard.rank, shard.world_size),
        "record": shard.layout.attempt_record(shard.rank, shard.job.attempt),
    }


def poll_script(
    shards: Iterable[WatchedShard],
    nonce: str,
    *,
    accounts_of: Sequence[str] = (),
) -> str:
    """Build the script of one poll, for the standard input of a remote ``sh -s``.

    Files are read by ``grep``, one process for hundreds of them, which puts the file's name before
    each line. Listing a folder first makes a network file system look again.

    Args:
        shards: whose files to read.
        nonce: random, and never the same twice.
        accounts_of: array ids to ask sacct for; none asks nothing.
    """
    chosen = list(shards)
    clusters = sorted({shard.job.cluster or "" for shard in chosen})
    lines = [
        "LC_ALL=C; export LC_ALL",
        f"s() {{ printf '\\n@%s %s\\n' {shlex.quote(nonce)} \"$1\"; }}",
    ]
    for cluster in clusters:
        lines += _ask("squeue", squeue_command(cluster=cluster or None))
    if accounts_of:
        for cluster in clusters:
            lines += _ask("sacct", sacct_command(job_ids=accounts_of, cluster=cluster or None))
    runs: dict[PurePosixPath, list[str]] = {}
    for shard in chosen:
        run = shard.layout.run
        runs.setdefault(run, []).extend(
            str(path.relative_to(run)) for path in shard_files(shard).values()
        )
    for run, names in runs.items():
        lines += [
            "s files",
            f"if cd -- {shlex.quote(str(run))}; then",
            f"printf '%s\\n' {shlex.quote(str(run))}",
            "ls outputs >/dev/null",
        ]
        for at in range(0, len(names), FILES_PER_COMMAND):
            batch = shlex.join(names[at : at + FILES_PER_COMMAND])
            lines.append(f"grep -as '' /dev/null {batch} </dev/null")
        lines.append("fi")
    return "\n".join([*lines, "s end", ""])


def _ask(section: str, command: Sequence[str]) -> list[str]:
    return [f"s {section}", f"{shlex.join(command)} 2>&1 </dev/null", f's "{section}-status $?"']


@dataclass(slots=True)
class _Reading:
    """State of a walk over an answer's sections."""

    status: dict[str, list[int]] = field(default_factory=dict)
    text: dict[str, list[str]] = field(default_factory=dict)
    files: dict[PurePosixPath, list[str]] = field(default_factory=dict)


def parse_poll(text: str, nonce: str) -> PollAnswer:
    """Read a poll's answer.

    Raises:
        TransportError: the answer is cut off: its last section is missing.
    """
    reading = _Reading()
    complete = False
    for title, body in _sections(text, nonce):
        name, _, status = title.partition(" ")
        if name == "end":
            complete = True
        elif name == "files":
            _read_files(body, reading.files)
        elif name.endswith("-status"):
            reading.status.setdefault(name.removesuffix("-status"), []).append(int(status))
        else:
            reading.text.setdefault(name, []).append(body)
    if not complete:
        raise TransportError("The answer of the cluster was cut off.")
    queue_text = "\n".join(reading.text.get("squeue", []))
    accounts_text = "\n".join(reading.text.get("sacct", []))
    queue_ok = not any(reading.status.get("squeue", [1]))
    return PollAnswer(
        queue_ok=queue_ok,
        queue=_by_element(parse_squeue(queue_text)) if queue_ok else {},
        accounts_state=_accounts_state(reading.status.get("sacct"), accounts_text),
        accounts=_by_element(parse_sacct(accounts_text)),
        files={path: "\n".join(lines) for path, lines in reading.files.items()},
        complaint="" if queue_ok else " ".join(queue_text.split()),
    )


def _sections(text: str, nonce: str) -> Iterable[tuple[str, str]]:
    mark = f"\n@{nonce} "
    for part in text.split(mark)[1:]:
        title, newline, body = part.partition("\n")
        if newline:
            yield title, body


def _read_files(body: str, files: dict[PurePosixPath, list[str]]) -> None:
    folder, _, lines = body.partition("\n")
    if not folder.startswith("/"):
        return
    for line in lines.splitlines():
        name, colon, content = line.partition(":")
        if colon:
            files.setdefault(PurePosixPath(folder) / name, []).append(content)


def _accounts_state(statuses: Sequence[int] | None, text: str) -> Accounts:
    if statuses is None:
        return Accounts.NOT_ASKED
    if not any(statuses):
        return Accounts.ANSWERED
    return Accounts.DISABLED if accounting_disabled(text) else Accounts.DOWN


def _by_element(rows: Iterable[Row]) -> dict[tuple[str, int | None], Row]:
    return {(row.array_id, row.index): row for row in rows}
