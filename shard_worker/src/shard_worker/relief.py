"""Finishing shards whose jobs have not begun, after the others have done all their work."""

import contextlib
import logging
from dataclasses import replace

from shard_worker.contract import Spec
from shard_worker.feed import Feed
from shard_worker.fsio import create_exclusive
from shard_worker.layout import ShardLayout
from shard_worker.manifest import Attempt, Timings, write_manifest, write_output

log = logging.getLogger(__name__)

FIRST_ATTEMPT = 1
"""Only a shard that never ran is relieved: one that did has claimed blocks and answers for them."""


def relieve(layout: ShardLayout, spec: Spec, attempt: Attempt, feed: Feed) -> None:
    """Finish every shard that has no work left and whose job has not begun.

    It gets an output without rows, and a marker in the run's folder lets the orchestrator look. Its
    own job finds itself finished if it begins after all; where it begins at this very moment it
    finds no block to claim and writes the same.

    Args:
        layout: of the shard that is done.
        spec: of the run.
        attempt: of the shard that is done.
        feed: that shard's.

    Raises:
        OSError: the shared file system is full or gone.
    """
    for rank in feed.without_work():
        other = replace(layout, rank=rank)
        if any(other.folder.glob("claim-*")) or other.record(FIRST_ATTEMPT).exists():
            continue
        if not other.manifest.exists():
            write_output(other, spec, [])
            nothing = replace(attempt, number=FIRST_ATTEMPT, blocks=(), telemetry={})
            write_manifest(other, spec, [], nothing, Timings())
            log.info("shard %d has not begun and has no work left, so it is finished for it", rank)
        with contextlib.suppress(FileExistsError):
            create_exclusive(layout.relieved, b"")
