"""Answers that are safe as soon as they are finished.

A part is a small parquet file whose name carries the digest of its content, so that a reader can
tell a whole part from a torn or a damaged one without trusting anything else. Its schema metadata
carries the fingerprint, so that answers of other weights or settings are never taken for ours.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from shard_worker.fsio import write_atomic
from shard_worker.rows import Answer, answers_from_bytes, answers_to_bytes

log = logging.getLogger(__name__)

_NAME = re.compile(r"part-(?P<number>\d{6})-a(?P<attempt>\d+)-(?P<digest>[0-9a-f]{16})\.parquet")
_DIGEST = 16


class PartWriter:
    """Collects answers and writes them when there are enough or the oldest has waited enough.

    Args:
        folder: the shard's ``parts`` folder, which must exist.
        fingerprint: of the run.
        attempt: of this process.
        rows: answers after which a part is written.
        seconds: age of the oldest unwritten answer after which a part is written.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        attempt: int,
        *,
        rows: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._attempt = attempt
        self._rows = rows
        self._seconds = seconds
        self._clock = clock
        self._waiting: list[Answer] = []
        self._oldest = 0.0
        self._next = 1 + max((int(match["number"]) for match in _matches(folder)), default=0)

    def add(self, answer: Answer) -> None:
        """Take an answer; it is safe once :meth:`flush` has returned."""
        if not self._waiting:
            self._oldest = self._clock()
        self._waiting.append(answer)

    def flush_if_due(self) -> bool:
        """Write a part if enough answers wait or the oldest waited long enough."""
        due = len(self._waiting) >= self._rows or (
            bool(self._waiting) and self._clock() - self._oldest >= self._seconds
        )
        return due and self.flush()

    def flush(self) -> bool:
        """Write what waits, durably; False if there was nothing.

        Raises:
            OSError: the disk is full or gone; the answers stay in memory for another try.
        """
        if not self._waiting:
            return False
        data = answers_to_bytes(self._waiting, {"fingerprint": self._fingerprint})
        digest = hashlib.sha256(data).hexdigest()[:_DIGEST]
        name = f"part-{self._next:06d}-a{self._attempt}-{digest}.parquet"
        write_atomic(self._folder / name, data)
        self._next += 1
        self._waiting = []
        return True


def _matches(folder: Path) -> list[re.Match[str]]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [match for name in names if (match := _NAME.fullmatch(name))]


def read_parts(folder: Path, fingerprint: str) -> dict[str, Answer]:
    """Read every whole part of this fingerprint.

    Damaged parts and parts of another fingerprint are left out and named in the log. Where two
    parts answer one request, the earlier part wins, so that a later attempt cannot change an answer
    that somebody may have read.

    Returns:
        Answers by request id; empty where the folder does not exist.
    """
    answers: dict[str, Answer] = {}
    for match in _matches(folder):
        data = (folder / match[0]).read_bytes()
        if hashlib.sha256(data).hexdigest()[:_DIGEST] != match["digest"]:
            log.warning("%s is damaged; its answers are made again", match[0])
            continue
        found, metadata = answers_from_bytes(data)
        if metadata.get("fingerprint") != fingerprint:
            log.warning("%s belongs to another fingerprint; it is left out", match[0])
            continue
        for answer in found:
            answers.setdefault(answer.request_id, answer)
    return answers
