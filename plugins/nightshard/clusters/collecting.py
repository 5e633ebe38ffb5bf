"""Bringing a run's answers back, and reading a shard's log."""

import asyncio
import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nightshard.clusters.attempts import AttemptRecord
from nightshard.clusters.documents import Manifest
from nightshard.clusters.errors import CorruptOutputError, TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.transport import COMMAND_NOT_FOUND, Transport, all_of, run_checked

LOG_LINES = 30
LOG_BYTES = 64_000
TRIES = 2
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class CollectedShard:
    """One shard's answers on this machine.

    Attributes:
        rank: the shard.
        output: local parquet file, equal to its manifest's checksum.
        manifest_file: local copy of the manifest.
        manifest: its content.
    """

    rank: int
    output: Path
    manifest_file: Path
    manifest: Manifest


async def collect_run(
    transport: Transport, layout: RunLayout, world_size: int, folder: Path
) -> list[CollectedShard]:
    """Download all outputs and manifests of a run and check each against its checksum.

    A file that is here already and agrees is not fetched again.

    Args:
        transport: connection to the login node.
        layout: the run.
        world_size: number of shards.
        folder: local folder; made if missing.

    Returns:
        The shards in the order of their ranks.

    Raises:
        CorruptOutputError: a manifest is missing or unreadable, or a file disagrees with its
            manifest's checksum even when fetched again.
        TransportError: the connection failed.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    return await all_of(
        _collect_shard(transport, layout, rank, world_size, folder) for rank in range(world_size)
    )


async def _collect_shard(
    transport: Transport, layout: RunLayout, rank: int, world_size: int, folder: Path
) -> CollectedShard:
    where = layout.manifest(rank, world_size)
    content = await transport.get_bytes(where)
    manifest = Manifest.read(content)
    if content is None or manifest is None:
        raise CorruptOutputError(
            f"The manifest {where} {'is missing' if content is None else 'cannot be read'}."
        )
    remote = layout.output_file(rank, world_size)
    if manifest.output_file != remote.name or manifest.run_key != layout.run_key:
        raise CorruptOutputError(f"The manifest {where} speaks of another shard or run.")
    output = folder / remote.name
    for left in reversed(range(TRIES)):
        if await asyncio.to_thread(_sha256, output) == manifest.sha256:
            break
        await transport.get_file(remote, output)
        if not left and await asyncio.to_thread(_sha256, output) != manifest.sha256:
            raise CorruptOutputError(
                f"{remote} does not have the checksum that its manifest states, even when fetched "
                "again; the shard has to run again."
            )
    manifest_file = folder / where.name
    await asyncio.to_thread(manifest_file.write_bytes, content)
    return CollectedShard(rank, output, manifest_file, manifest)


def _sha256(path: Path) -> str | None:
    if not path.exists():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


async def read_attempts(transport: Transport, layout: RunLayout) -> list[AttemptRecord]:
    """Return the records of all attempts of a run, in the order of ranks and attempts.

    Raises:
        TransportError: the connection failed.
    """
    script = 'cd -- "$1" && find . -name "attempt-*.json" -exec cat {} +'
    command = ["sh", "-c", script, "attempts", str(layout.shards)]
    text = await run_checked(transport, command, "Reading the attempts")
    records = [AttemptRecord.read(line) for line in text.splitlines()]
    return sorted(filter(None, records), key=lambda one: (one.rank, one.attempt))


async def is_intact(transport: Transport, path: PurePosixPath, sha256: str) -> bool:
    """Say whether a remote file has a checksum; it is computed on the cluster.

    A login node without ``sha256sum`` is given the benefit of the doubt: :func:`collect_run` checks
    the file once more when it is here.

    Raises:
        TransportError: the connection failed.
    """
    result = await transport.run(["sha256sum", "--", str(path)], idempotent=True)
    if result.exit_status == COMMAND_NOT_FOUND:
        return True
    # A name with a backslash makes sha256sum begin the line with one.
    return result.ok and result.stdout.lstrip("\\").startswith(sha256)


async def tail_log(
    transport: Transport, layout: RunLayout, rank: int, attempt: int, lines: int = LOG_LINES
) -> list[str]:
    """Return the last lines of an attempt's log; none where there is no log.

    Raises:
        TransportError: the connection failed.
    """
    path = str(layout.attempt_log(rank, attempt))
    script = 'if [ -f "$1" ]; then tail -c "$2" -- "$1"; fi'
    result = await transport.run(
        ["sh", "-c", script, "tail", path, str(LOG_BYTES)], idempotent=True
    )
    if not result.ok:
        raise TransportError(f"Reading {path} failed: {' '.join(result.stderr.split())}.")
    # A progress bar redraws its line with carriage returns; only its last state is worth reading.
    texts = (line.rstrip("\r").rpartition("\r")[2] for line in result.stdout.split("\n"))
    shown = [text for text, _ in itertools.groupby(texts)]
    while shown and not shown[-1].strip():
        shown.pop()
    return shown[-lines:]
