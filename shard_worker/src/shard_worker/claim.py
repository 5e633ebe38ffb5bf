"""One owner a shard and attempt.

The claim file is created exclusively and never removed. It is the backstop behind the orchestrator:
if a submission went through twice, the second job finds the claim and goes away without touching
anything. A new attempt has a new number, which only the orchestrator gives.
"""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shard_worker.errors import ClaimHeldError
from shard_worker.fsio import create_exclusive
from shard_worker.layout import ShardLayout
from shard_worker.slurm import Place

_NAME = re.compile(r"claim-(?P<attempt>\d+)(?:-restart-\d+)?")


def take_claim(layout: ShardLayout, attempt: int, place: Place) -> Path:
    """Claim a shard's attempt.

    A job that Slurm requeued (node failure, preemption) keeps its id and its attempt number; it may
    go on after itself, since Slurm starts it again only when its first run is over. Each such
    restart is claimed exclusively as well.

    Returns:
        The claim file.

    Raises:
        ClaimHeldError: somebody else holds this attempt, a later attempt has begun, or the
            orchestrator has given this one up.
    """
    check_still_ours(layout, attempt)
    path = layout.claim(attempt)
    data = json.dumps(
        {
            "rank": layout.rank,
            "attempt": attempt,
            "node": place.node,
            "pid": os.getpid(),
            "job_id": place.job_id,
            "restarts": place.restarts,
            "claimed_at": datetime.now(UTC).isoformat(),
        }
    ).encode()
    try:
        create_exclusive(path, data)
    except FileExistsError:
        holder = _read(path)
        if not _is_own_restart(holder, place):
            raise _held(path, holder) from None
    else:
        return path
    path = path.with_name(f"{path.name}-restart-{place.restarts}")
    try:
        create_exclusive(path, data)
    except FileExistsError:
        raise _held(path, _read(path)) from None
    return path


def check_still_ours(layout: ShardLayout, attempt: int) -> None:
    """Make sure that this attempt is still the one that counts.

    An orchestrator that took it for lost (a node that nobody could reach, a job that started hours
    after its submission seemed to have failed) may have begun another one.

    Raises:
        ClaimHeldError: it is not; the answers so far are kept.
    """
    # Listing the folder makes a network file system look again.
    for path in layout.folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and int(match["attempt"]) > attempt:
            raise ClaimHeldError(
                f"attempt {match['attempt']} of shard {layout.rank} has begun already ({path}), so "
                f"attempt {attempt} ends here; nothing needs to be done."
            )
        if path == layout.record(attempt):
            raise ClaimHeldError(
                f"attempt {attempt} of shard {layout.rank} was given up ({path}), so it ends here; "
                "nothing needs to be done."
            )


def check_wanted(layout: ShardLayout, attempt: int) -> None:
    """Make sure that a shard whose job is shared was not given up before this attempt.

    Raises:
        ClaimHeldError: the orchestrator wrote that no other attempt follows the last one.
    """
    record = layout.record(attempt - 1)
    if attempt > 1 and _read(record).get("again") is False:
        raise ClaimHeldError(
            f"shard {layout.rank} was given up after attempt {attempt - 1} ({record}); nothing "
            "needs to be done."
        )


def _is_own_restart(holder: dict[str, Any], place: Place) -> bool:
    return (
        place.job_id is not None
        and holder.get("job_id") == place.job_id
        and place.restarts > int(holder.get("restarts", 0))
    )


def _held(path: Path, holder: dict[str, Any]) -> ClaimHeldError:
    job = f"job {holder['job_id']}" if holder.get("job_id") else f"process {holder.get('pid')}"
    return ClaimHeldError(
        f"{path} is held by {job} on {holder.get('node')} since {holder.get('claimed_at')}; "
        "if that one has ended, start again with a higher --attempt."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # its owner has created it but not yet written it
        return {}
    return value if isinstance(value, dict) else {}
