"""Which models on a cluster may go: those that no run has used for long, and the largest need."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.remote_python import run_worker_python
from nightshard.clusters.transport import Transport, run_checked
from nightshard.core.errors import UserError

ALWAYS_KEPT_DAYS = 2.0
"""A model that was used so recently may belong to a run that goes on."""

_PROGRAM = r"""
import json, os, sys

root = sys.argv[1]


def size(folder):
    total = 0
    for top, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(top, name)).st_size for name in names)
    return total


def used(folder):
    mark = os.path.join(folder, ".nightshard-used")
    return os.stat(mark if os.path.exists(mark) else folder).st_mtime


for name in sorted(os.listdir(root) if os.path.isdir(root) else []):
    whole = os.path.join(root, name)
    if name.startswith("models--"):
        snapshots = os.path.join(whole, "snapshots")
        last = [used(one.path) for one in os.scandir(snapshots)] if os.path.isdir(snapshots) else []
        print(json.dumps([whole, size(whole), max(last, default=os.stat(whole).st_mtime)]))
    elif "--" in name:
        for one in os.scandir(whole):
            if one.is_dir() and os.path.exists(os.path.join(one.path, "config.json")):
                print(json.dumps([one.path, size(one.path), used(one.path)]))
"""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model below ``models.dir`` that Nightshard fetched.

    Attributes:
        path: its folder; of the Hub's cache the repository's, with all its revisions.
        size: bytes.
        used_at: when a run last asked for it, seconds since 1970.
    """

    path: str
    size: int
    used_at: float


async def list_models(transport: Transport, profile: ClusterProfile) -> list[StoredModel]:
    """List the fetched models; a folder under another name than ``org--name`` is not ours.

    Raises:
        UserError: the profile's Python cannot be run.
        TransportError: the connection failed.
    """
    done = await run_worker_python(
        transport, profile, ["-", profile.models.dir], stdin=_PROGRAM, timeout_s=600.0
    )
    return [StoredModel(*json.loads(line)) for line in done.stdout.splitlines()]


def may_go(
    models: Iterable[StoredModel], now: float, *, older_than_days: float, keep_bytes: int | None
) -> list[StoredModel]:
    """Choose the models to remove, the longest unused first. Pure.

    Args:
        models: all of them.
        now: seconds since 1970.
        older_than_days: those unused for longer go.
        keep_bytes: more go until no more than this is left; None for no such limit.

    Returns:
        None of them used in the last :data:`ALWAYS_KEPT_DAYS`.
    """
    by_age = sorted(models, key=lambda one: (one.used_at, one.path))
    left = sum(one.size for one in by_age)
    going = []
    for one in by_age:
        days = (now - one.used_at) / 86400
        too_much = keep_bytes is not None and left > keep_bytes
        if days >= ALWAYS_KEPT_DAYS and (days > older_than_days or too_much):
            going.append(one)
            left -= one.size
    return going


async def remove(
    transport: Transport, profile: ClusterProfile, models: Sequence[StoredModel]
) -> None:
    """Remove models.

    Raises:
        UserError: a path lies outside of ``models.dir``.
        TransportError: the connection failed; calling again is harmless.
    """
    root = PurePosixPath(profile.models.dir)
    for one in models:
        path = PurePosixPath(one.path)
        if root not in path.parents or ".." in path.parts:
            raise UserError(f"{path} lies outside of {root}, so it is left alone.")
        await run_checked(transport, ["rm", "-rf", "--", str(path)], f"Removing {path}")
