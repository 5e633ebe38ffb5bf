"""What Slurm says: states, text formats, rows. Pure.

The text formats are used and not ``--json``: measured on Slurm 22.05, ``squeue --json -j X``
ignores ``-j``, and ``sacct --json`` shows return code 0 for jobs that failed with 3.
"""

import functools
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class ShardState(StrEnum):
    """What every state of Slurm comes down to; all but the first three are an end."""

    WAITING = "waiting"
    RUNNING = "running"
    UNKNOWN = "unknown"
    ENDED_WELL = "ended_well"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node_failure"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REJECTED = "rejected"

    @property
    def ended(self) -> bool:
        """Whether the job will not run on."""
        return self not in {ShardState.WAITING, ShardState.RUNNING, ShardState.UNKNOWN}


_STATES = {
    ShardState.WAITING: (
        "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT "
        "EXPEDITING POWER_UP_NODE"
    ),
    # COMPLETING has ended, but how is not final before its epilogue has.
    ShardState.RUNNING: "RUNNING COMPLETING RESIZING SIGNALING STAGE_OUT STOPPED SUSPENDED",
    ShardState.ENDED_WELL: "COMPLETED",
    ShardState.PREEMPTED: "PREEMPTED",
    ShardState.NODE_FAILURE: "NODE_FAIL BOOT_FAIL LAUNCH_FAILED RECONFIG_FAIL",
    ShardState.TIME_LIMIT: "TIMEOUT DEADLINE",
    ShardState.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    ShardState.CANCELLED: "CANCELLED REVOKED",
    ShardState.FAILED: "FAILED",
}

STATE_OF = {word: state for state, words in _STATES.items() for word in words.split()}
"""Long state names of ``squeue %T`` and ``sacct State``, from squeue(1) and sacct(1)."""

REJECTED_REASONS = frozenset({"BadConstraints"})
"""Reason with which Slurm keeps a FAILED record of a submission that it refused."""

STUCK_REASONS = {
    "PartitionTimeLimit": "max job hours is above the partition's time limit",
    "AssocMaxWallDurationPerJobLimit": "max job hours is above the account's limit",
    "QOSMaxWallDurationPerJobLimit": "max job hours is above the QOS's limit",
    "PartitionNodeLimit": "the partition has too few nodes for it",
    "InvalidAccount": "the account is unknown; correct slurm.account in the profile",
    "InvalidQOS": "the QOS is unknown; correct slurm.qos in the profile",
    "AccountNotAllowed": "the partition does not admit the account",
    "QOSNotAllowed": "the partition does not admit the QOS",
    "BadConstraints": "no node fits the constraints; correct slurm in the profile",
    "JobHeldUser": "somebody holds it; `scontrol release` lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "launch failed requeued held": "its node could not start it again and Slurm holds it; "
    "`scontrol release` lets it go",
}
"""Reasons with which Slurm *accepts* a job that it will then never start by itself."""

SQUEUE_FORMAT = "%i|%F|%K|%A|%T|%r|%N|%S|%M|%j"
SQUEUE_BARS = SQUEUE_FORMAT.count("|")
SACCT_FORMAT = "JobID,JobIDRaw,State,ExitCode,NodeList,ElapsedRaw,Start,JobName"
SACCT_BARS = SACCT_FORMAT.count(",")

_NOTHING = {"", "N/A", "None", "None assigned", "(null)", "Unknown", "NONE"}


@dataclass(frozen=True, slots=True)
class Row:
    """One array element as Slurm lists it.

    Attributes:
        array_id: id of the array, which ``sbatch`` printed.
        index: array index, None for a job that is no array.
        raw_id: the element's own job id. (Until it starts it has the array's; the last element
            keeps the array's.)
        state: what it comes down to.
        word: Slurm's own long word.
        reason: Slurm's reason for waiting or failing.
        node: node or node list.
        start: start, or the expected start while it waits, in the cluster's own clock.
        name: job name.
        exit_code: exit code, where the source tells it.
        elapsed_s: seconds of run time by the cluster's own clock, where the source tells it.
    """

    array_id: str
    index: int | None
    raw_id: str
    state: ShardState
    word: str
    reason: str | None
    node: str | None
    start: str | None
    name: str
    exit_code: int | None = None
    elapsed_s: int | None = None


def element_id(job_id: str, index: int | None) -> str:
    """Name an array element, ``57_3``, or a job that is no array, ``57``, as Slurm does."""
    return job_id if index is None else f"{job_id}_{index}"


def state_of(word: str, reason: str | None = None) -> ShardState:
    """Map a long state word; ``CANCELLED by 1000`` and ``PENDING+`` are understood."""
    first = word.split(maxsplit=1)[0].rstrip("+").upper() if word.strip() else ""
    state = STATE_OF.get(first, ShardState.UNKNOWN)
    if state is ShardState.FAILED and reason in REJECTED_REASONS:
        return ShardState.REJECTED
    return state


def parse_squeue(text: str, names: Container[str] | None = None) -> list[Row]:
    """Read ``squeue --array --noheader --format=SQUEUE_FORMAT``; other lines are passed over.

    An element that squeue has not expanded (``7_[3-5%2]``) gives a row for each index.

    Args:
        text: what it printed.
        names: the job names that are wanted; None wants every row.
    """
    rows: list[Row] = []
    for line in text.split("\n"):
        fields = line.split("|", SQUEUE_BARS)
        # First what costs little: the listing may be that of an account with many other jobs.
        if len(fields) == SQUEUE_BARS + 1 and (names is None or fields[-1].strip() in names):
            rows.extend(_squeue_rows(fields))
    return rows


def _squeue_rows(fields: list[str]) -> Iterator[Row]:
    element, array_id, _, raw_id, word, reason, node, start, used, name = map(str.strip, fields)
    if not array_id.isdigit():
        return
    known_reason, known_node, known_start = _known(reason), _known(node), _known(start)
    state = _state_of(word, known_reason, known_node is None and known_start is None)
    elapsed_s = elapsed_seconds(used)
    for index in _indices(element.partition("_")[2] or None):
        yield Row(
            array_id,
            index,
            raw_id,
            state,
            word,
            known_reason,
            known_node,
            known_start,
            name,
            elapsed_s=elapsed_s,
        )


@functools.lru_cache(maxsize=512)
def _state_of(word: str, reason: str | None, never_ran: bool) -> ShardState:
    """Map a state; a record that a refused submission leaves behind is no job that failed."""
    state = state_of(word, reason)
    return ShardState.REJECTED if state is ShardState.FAILED and never_ran else state


@functools.lru_cache(maxsize=8192)
def elapsed_seconds(text: str) -> int | None:
    """Read Slurm's ``[days-]hours:minutes:seconds`` or ``minutes:seconds``; None for others."""
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_sacct(text: str, names: Container[str] | None = None) -> list[Row]:
    """Read ``sacct -n -P -X --format=SACCT_FORMAT``; other lines are passed over.

    Args:
        text: what it printed.
        names: the job names that are wanted; None wants every row.
    """
    rows: list[Row] = []
    for line in text.split("\n"):
        fields = line.split("|", SACCT_BARS)
        if len(fields) == SACCT_BARS + 1 and (names is None or fields[-1].strip() in names):
            rows.extend(_sacct_rows(fields))
    return rows


def _sacct_rows(fields: list[str]) -> Iterator[Row]:
    match = re.fullmatch(r"(\d+)(?:_(\d+|\[.*\]))?", fields[0].strip())
    if match is None:
        return
    _, raw_id, word, exit_code, node, elapsed, start, name = (field.strip() for field in fields)
    known_node, known_start = _known(node), _known(start)
    state = _state_of(word, None, known_node is None and known_start is None)
    code, _, signal = exit_code.partition(":")
    failed_with = int(code) if code.isdigit() else None
    if failed_with == 0 and signal.isdigit() and int(signal):
        failed_with = 128 + int(signal)
    for index in _indices(match[2]):
        yield Row(
            array_id=match[1],
            index=index,
            raw_id=raw_id,
            state=state,
            word=word,
            reason=None,
            node=known_node,
            start=known_start,
            name=name,
            exit_code=failed_with if state.ended else None,
            elapsed_s=int(elapsed) if elapsed.isdigit() else None,
        )


def _indices(text: str | None) -> list[int | None]:
    if text is None:
        return [None]
    return list(expand_indices(text)) if text.startswith("[") else [int(text)]


def _known(text: str) -> str | None:
    return None if text in _NOTHING else text


def expand_indices(text: str) -> list[int]:
    """Expand ``[1,4-7%2]`` or ``0-20:5`` to indices; what is cut off (``...``) is left out."""
    indices: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip().rstrip("]"))
        if match is not None:
            first = int(match[1])
            last = int(match[2] or first)
            indices.extend(range(first, last + 1, int(match[3] or 1)))
    return indices


def compress_indices(indices: Iterable[int]) -> str:
    """Write indices as Slurm does, ``0-2,5``."""
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
