"""Bringing a run to the cluster: room on disk, the worker, the model, the files."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RANK_DIGITS, RunLayout
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.remote_disk import full_disk
from nightshard.clusters.remote_python import run_worker_python
from nightshard.clusters.transport import Transport, all_of, run_checked
from nightshard.core.errors import UserError

INODES_PER_SHARD = 16
SPEC = PurePosixPath("spec.json")
_GIB = 1024**3

_PREFLIGHT = """\
mkdir -p -- "$1" 2>&1 || exit 10
probe=$(mktemp -- "$1/.nightshard-XXXXXX" 2>&1) || { printf '%s' "$probe"; exit 10; }
rm -f -- "$probe"
for program in sbatch squeue scancel; do
  command -v "$program" >/dev/null || { printf '%s' "$program"; exit 11; }
done
df -Pk -- "$1" | tail -n 1
df -Pi -- "$1" | tail -n 1
"""


async def preflight(
    transport: Transport,
    profile: ClusterProfile,
    layout: RunLayout,
    bytes_needed: int,
    num_shards: int = 1,
) -> None:
    """Check that the run can live on the cluster, before anything is staged.

    Args:
        transport: connection to the login node.
        profile: the cluster.
        layout: the run.
        bytes_needed: what staging and the answers will take.
        num_shards: each takes some files, and file systems limit their number too.

    Raises:
        UserError: the work folder cannot be written, the disk or its inodes are full, or Slurm's
            programs are missing.
        TransportError: the connection failed.
    """
    workdir = str(layout.workdir)
    result = await transport.run(["sh", "-c", _PREFLIGHT, "preflight", workdir], idempotent=True)
    answer = " ".join(result.stdout.split())
    where = f"{workdir} on cluster {profile.name!r}"
    match result.exit_status:
        case 0:
            _check_room(result.stdout, where, bytes_needed, INODES_PER_SHARD * num_shards)
        case 10:
            full = await full_disk(transport, layout.workdir, 1)
            if full is not None:
                raise full
            raise UserError(f"The work folder {where} cannot be written: {answer}.")
        case 11:
            raise UserError(
                f"Slurm's program {answer} is not on the PATH of cluster {profile.name!r}; check "
                "that the connection leads to a login node."
            )
        case _:
            detail = " ".join(result.stderr.split())
            raise TransportError(f"Checking {where} failed: {detail}.")


def _check_room(text: str, where: str, bytes_needed: int, inodes_needed: int) -> None:
    kilobytes, inodes = (free_of(line) for line in text.splitlines()[-2:])
    if kilobytes is not None and kilobytes * 1024 < bytes_needed:
        raise UserError(
            f"The disk of {where} has {kilobytes * 1024 / _GIB:.1f} GiB free and the run needs "
            f"{bytes_needed / _GIB:.1f} GiB; free some space or choose another workdir."
        )
    if inodes is not None and inodes < inodes_needed:
        raise UserError(
            f"The disk of {where} has room for {inodes:,} more files and the run needs "
            f"{inodes_needed:,}; delete some files or choose another workdir."
        )


def free_of(df_line: str) -> int | None:
    """Return the fourth column of ``df -P``; None where the file system does not count it."""
    fields = df_line.split()
    if len(fields) < 6 or not fields[-3].isdigit():  # noqa: PLR2004 (df -P has six columns)
        return None
    total = fields[-5]
    return None if total == "0" else int(fields[-3])


def worker_archive(source: Path) -> tuple[str, bytes]:
    """Pack the worker's source tree; see :func:`package_archive`."""
    return package_archive(source, "shard_worker")


def package_archive(source: Path, package: str) -> tuple[str, bytes]:
    """Pack a package's source tree; the same content always gives the same bytes and name.

    Returns:
        The file name ``<package>-<sha12>.zip`` and the archive.

    Raises:
        UserError: there is no such package in this folder.
    """
    files = sorted(
        path
        for path in source.glob(f"{package}/**/*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    if not files:
        raise UserError(f"The package {package} is not in {source}; set NIGHTSHARD_HOME rightly.")
    digest = hashlib.sha256()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            name = path.relative_to(source).as_posix()
            content = path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return f"{package}-{digest.hexdigest()[:12]}.zip", buffer.getvalue()


async def ensure_worker(transport: Transport, profile: ClusterProfile, worker_source: Path) -> str:
    """Put the worker on the cluster and check that it starts there, once per content.

    Returns:
        Remote path of its archive.

    Raises:
        UserError: the profile's python or one of the worker's packages is missing there.
        TransportError: the connection failed.
    """
    name, content = await asyncio.to_thread(worker_archive, worker_source)
    path = PurePosixPath(profile.workdir) / "worker" / name
    if not await transport.exists(path):
        await run_checked(transport, ["mkdir", "-p", "--", str(path.parent)], "Making a folder")
        await transport.put_bytes(path, content)
        await run_worker_python(
            transport, profile, ["-m", "shard_worker", "--version"], worker_zip=str(path)
        )
    return str(path)


_FOLDERS = 'xargs -0 mkdir -p -- && cd -- "$1"\n'


def _links(layout: RunLayout, world_size: int, array_size: int, per_job: int) -> str:
    """Return shell lines that make :meth:`RunLayout.links` for all arrays that need them."""
    lines = []
    for first in range(0 if per_job > 1 else array_size, world_size, array_size):
        folder = layout.links(first).relative_to(layout.run)
        count = -(-min(array_size, world_size - first) // per_job)
        lines += [
            f"mkdir -p {folder} && i=0",
            f"while [ $i -lt {count} ]; do",
            f"  index=$(printf '%0{RANK_DIGITS}d' $i)",
            f"  rank=$(printf '%0{RANK_DIGITS}d' $(({first} + i * {per_job})))",
            f'  ln -sfn "../../shards/$rank" "{folder}/$index" || exit 1',
            "  i=$((i + 1))",
            "done",
        ]
    return "\n".join(lines)


async def stage_run(
    transport: Transport,
    layout: RunLayout,
    files: Mapping[str, Path | bytes],
    world_size: int,
    *,
    array_size: int | None = None,
    per_job: int = 1,
) -> None:
    """Copy a run's files, ``spec.json`` last, so that a run with a spec has all its inputs.

    Args:
        transport: connection to the login node.
        layout: the run.
        files: content by path relative to the run's folder.
        world_size: number of shards; their folders are made too.
        array_size: most shards of one array; by default one array has all.
        per_job: shards that share a job.

    Raises:
        TransportError: the connection failed; staging again is harmless.
    """
    relative = {PurePosixPath(name): content for name, content in files.items()}
    for name in relative:
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"{name} is not a path inside the run")
    folders = {*layout.folders(world_size), *(layout.run / name.parent for name in relative)}
    script = _FOLDERS + _links(layout, world_size, array_size or world_size, per_job)
    # By standard input, since one word of a command line has at most 128 KiB on Linux.
    made = await transport.run(
        ["sh", "-c", script, "folders", str(layout.run)],
        stdin="\0".join(sorted(map(str, folders))),
        idempotent=True,
    )
    if not made.ok:
        detail = " ".join(made.stderr.split()) or f"exit status {made.exit_status}"
        raise TransportError(f"Making the run's folders failed on the cluster: {detail}.")

    async def put(name: PurePosixPath) -> None:
        content = relative[name]
        if isinstance(content, bytes):
            await transport.put_bytes(layout.run / name, content)
        else:
            await transport.put_file(layout.run / name, content)

    await all_of(put(name) for name in relative if name != SPEC)
    if SPEC in relative:
        await put(SPEC)
