"""One look at a run on its cluster, and a piece of a shard's log: each is one remote command."""

import base64
import binascii
import itertools
import re
import secrets
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from nightshard.clusters import cancelling
from nightshard.clusters.commands import squeue_command
from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RANK_DIGITS, RunLayout
from nightshard.clusters.sections import read_files, section_function, split_sections
from nightshard.clusters.slurm import Row, element_id, parse_squeue
from nightshard.clusters.transport import Transport
from nightshard.web.lines import Piece, cut

MAX_BYTES = 256 * 1024
"""Most bytes of a log in one answer."""

TAIL = -1
"""As an offset: the last ``MAX_BYTES`` of the log."""

_ATTEMPT_LOG = re.compile(r"shards/(\d+)/attempt-(\d+)\.log")

# Arguments: the log, offset (-1: the tail), most bytes.
_READ = """\
if [ -f "$1" ]; then
  size=$(($(wc -c <"$1")))
  start=$2
  if [ "$start" -lt 0 ]; then start=$((size > $3 ? size - $3 : 0)); fi
  if [ "$start" -gt "$size" ]; then start=0; fi
  echo "$size $start"
  tail -c "+$((start + 1))" -- "$1" | head -c "$3" | base64
else
  echo absent
fi
echo end
"""


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A part of a remote log, in bytes.

    Attributes:
        start: offset at which it begins.
        next_offset: where to read on.
        size: of the whole log when it was read.
        more: there was more than fits into one answer.
        piece: its lines, and the line that is being written.
    """

    start: int
    next_offset: int
    size: int
    more: bool
    piece: Piece


async def read_log(
    transport: Transport,
    path: PurePosixPath,
    offset: int = TAIL,
    limit: int = MAX_BYTES,
    before: int | None = None,
) -> LogPiece | None:
    """Read on, or back, in a log; None where there is none yet.

    Args:
        transport: connection to the login node.
        path: the log.
        offset: bytes that are known already, or :data:`TAIL`. Beyond the end of a log that began
            anew it counts as 0.
        limit: most bytes to read.
        before: read the lines that end at this byte, in place of those from ``offset`` on.

    Raises:
        TransportError: the connection failed.
    """
    limit = max(1, min(limit, MAX_BYTES))
    if before is not None:
        offset = max(0, before - limit)
        limit = max(1, before - offset)
    command = ["sh", "-c", _READ, "read-log", str(path), str(offset), str(limit)]
    answer = await transport.run(command, idempotent=True)
    lines = answer.stdout.split("\n")
    if not answer.ok or lines[-2:] != ["end", ""]:
        raise TransportError(f"Reading {path} failed: {' '.join(answer.stderr.split())}.")
    if lines[0] == "absent":
        return None
    try:
        size, start = (int(number) for number in lines[0].split())
        data = base64.b64decode("".join(lines[1:-2]), validate=True)
    except (ValueError, binascii.Error) as error:
        raise TransportError(f"Reading {path} failed: the answer was cut off.") from error
    end = start + len(data)
    full = len(data) >= limit and before is None
    if (offset < 0 or before is not None) and start > 0:
        # The tail begins inside a line.
        inside = data.find(b"\n") + 1
        data, start = data[inside:], start + inside
    piece = cut(data, full=full)
    return LogPiece(start, start + piece.consumed, size, size > end, piece)


@dataclass(slots=True)
class Found:
    """The parts of one look.

    Attributes:
        gone: the run has no folder on the cluster.
        complaint: what squeue said where it did not answer; its rows then mean nothing.
        rows: the run's elements that Slurm lists, by array id and index.
        files: text by path below the run's folder.
        sizes: size of each log in bytes, by path below the run's folder.
    """

    gone: bool = False
    complaint: str | None = None
    rows: dict[tuple[str, int | None], Row] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


async def look(transport: Transport, layout: RunLayout, rank: int | None = None) -> Found:
    """Ask once about a whole run, or about one shard of it.

    Args:
        transport: connection to the login node.
        layout: the run.
        rank: the only shard to read the files of.

    Raises:
        TransportError: the connection failed or the answer was cut off.
    """
    nonce = secrets.token_hex(8)
    script = look_script(layout, nonce, rank)
    answer = await transport.run(["sh", "-s"], stdin=script, idempotent=True)
    return parse_look(answer.stdout, nonce, layout)


def look_script(layout: RunLayout, nonce: str, rank: int | None = None) -> str:
    """Build the script of one look, for the standard input of a remote ``sh -s``.

    The answer is in sections, each begun by a line with the nonce, and ends with one, so that no
    file's content passes for a section and a cut line is noticed. The submissions' files tell which
    cluster of a federated site to ask.
    """
    mine = shlex.quote(f"|{job_prefix(layout)}")
    squeue = shlex.join(squeue_command())
    number = "" if rank is None else f"{rank:0{RANK_DIGITS}d}"
    shards, depth = ("shards", 2) if rank is None else (f"shards/{number}", 1)
    names = " -o ".join(
        f"-name '{name}'" for name in ("progress.json", "exit-a*", "attempt-*.json")
    )
    read = "-exec grep -as '' /dev/null {} +"
    return f"""\
LC_ALL=C; export LC_ALL
{section_function(nonce)}
ask() {{
  q=$({squeue} "$@" 2>&1 </dev/null); r=$?
  s "queue $r"
  if [ $r = 0 ]; then printf '%s\\n' "$q" | grep -F -- {mine}
  else printf '%s\\n' "$q" | head -n 3; fi
}}
if cd -- {shlex.quote(str(layout.run))} 2>/dev/null; then
  named='s/.*"cluster": "\\([A-Za-z0-9._-]*\\)".*/\\1/p'
  c=$(sed -n "$named" submission-a*.json 2>/dev/null | sort -u)
  if [ -z "$c" ]; then ask; fi
  for each in $c; do ask --clusters="$each"; done
  exec 2>/dev/null </dev/null
  s files
  grep -as '' /dev/null submission-a*.json
  find {shards} -maxdepth {depth} -type f \\( {names} \\) {read}
  find outputs -maxdepth 1 -name 'shard-{number}*.manifest.json' {read}
  s sizes
  find {shards} -maxdepth {depth} -name 'attempt-*.log' -exec wc -c {{}} +
else
  ask
  s gone
fi
s end
"""


def job_prefix(layout: RunLayout) -> str:
    """Return how the names of all Slurm jobs of a run begin."""
    return layout.job_name("")


def parse_look(text: str, nonce: str, layout: RunLayout) -> Found:
    """Read a look's answer.

    Raises:
        TransportError: its end is missing.
    """
    found = Found()
    complete = False
    for title, body in split_sections(text, nonce):
        name, _, status = title.partition(" ")
        if name == "queue" and status == "0":
            found.rows |= {
                (row.array_id, row.index): row
                for row in parse_squeue(body)
                if row.name.startswith(job_prefix(layout))
            }
        elif name == "queue":
            found.complaint = " ".join(body.split()) or f"squeue ended with {status}"
        elif name == "files":
            found.files = read_files(body)
        elif name == "sizes":
            found.sizes = dict(_sizes(body))
        found.gone = found.gone or name == "gone"
        complete = name == "end"
    if not complete:
        raise TransportError("The answer of the cluster was cut off.")
    return found


def _sizes(body: str) -> Iterator[tuple[str, int]]:
    for line in body.split("\n"):
        size, _, name = line.strip().partition(" ")
        if size.isdigit() and _ATTEMPT_LOG.fullmatch(name):
            yield name, int(size)


def alive(found: Found) -> list[str]:
    """Return a run's elements that still wait or run, as ``<array id>_<index>``."""
    return sorted(_id(row) for row in found.rows.values() if not row.state.ended)


def _id(row: Row) -> str:
    return element_id(row.array_id, row.index)


async def cancel_elements(
    transport: Transport, found: Found, chosen: Collection[str] | None = None
) -> list[str]:
    """Cancel a run's elements that still wait or run, or the chosen ones of them.

    Returns:
        Their ids.

    Raises:
        TransportError: it is not known whether the cancel arrived.
    """
    jobs = [row for row in found.rows.values() if not row.state.ended]
    jobs = [row for row in jobs if chosen is None or _id(row) in chosen]
    for (array_id, name), rows in itertools.groupby(
        sorted(jobs, key=lambda row: (row.array_id, row.name)),
        key=lambda row: (row.array_id, row.name),
    ):
        indices = [row.index for row in rows]
        await cancelling.cancel_elements(transport, array_id, indices, name=name)
    return [_id(row) for row in jobs]
