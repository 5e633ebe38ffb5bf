"""The sentences of a shard's log, and how to read a shard's progress back from them.

A person reads them in Airflow; ``nightshard launch --watchdog`` reads the same lines over
Airflow's REST API to draw its bars, so both always agree.
"""

import re
from dataclasses import dataclass

_PROGRESS = re.compile(
    r"(?P<phase>[a-z]+) on (?P<node>\S+): (?P<done>[\d,]+) of (?P<total>[\d,]+) answers"
    r"(?:, (?P<rate>[\d,]+) tok/s)?"
)


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far a shard is.

    Attributes:
        phase: one word, for example ``generating``.
        node: where it runs.
        done: finished answers.
        total: answers that the shard owes.
        tokens_per_s: rounded rate of generated tokens, None before the first.
    """

    phase: str
    node: str
    done: int
    total: int
    tokens_per_s: int | None = None


def progress_sentence(progress: ShardProgress) -> str:
    """Say how far a shard is: ``generating on node2: 340 of 516 answers, 1,250 tok/s``."""
    rate = "" if progress.tokens_per_s is None else f", {progress.tokens_per_s:,} tok/s"
    count = f"{progress.done:,} of {progress.total:,} answers"
    return f"{progress.phase} on {progress.node}: {count}{rate}"


def read_progress(line: str) -> ShardProgress | None:
    """Find a progress sentence in a log line; None where there is none."""
    match = _PROGRESS.search(line)
    if match is None:
        return None

    def number(name: str) -> int:
        return int(match[name].replace(",", ""))

    return ShardProgress(
        phase=match["phase"],
        node=match["node"],
        done=number("done"),
        total=number("total"),
        tokens_per_s=number("rate") if match["rate"] else None,
    )
