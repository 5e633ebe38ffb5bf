"""The worker and all that it needs in one archive, for nodes without internet."""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nightshard.core.errors import UserError
from nightshard.local.worker_env import make_environment

INSTALL = """#!/bin/sh
# Install the shard worker from this folder, without a network: sh install.sh FOLDER [ENGINE]
set -eu
if [ $# -lt 1 ]; then
  echo "Name the folder that shall hold the worker's environment: sh install.sh FOLDER" >&2
  exit 2
fi
target=$1
engine=${2:-vllm}
python=${PYTHON:-python@VERSION@}
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v "$python" >/dev/null; then
  echo "There is no $python here; load a module that has it, or set PYTHON." >&2
  exit 2
fi
echo "checking the archive"
(cd "$here" && sha256sum --quiet --check SHA256SUMS)
echo "making $target"
"$python" -m venv "$target"
pip="$target/bin/python -m pip --disable-pip-version-check install --quiet --no-index"
$pip --find-links "$here/wheels" --require-hashes --requirement "$here/requirements.lock"
$pip --find-links "$here/wheels" --no-deps shard-worker
exec "$target/bin/shard-worker" selfcheck --no-model --engine "$engine"
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the archive will be installed.

    Attributes:
        python: version, for example ``3.11``.
        platforms: wheel tags that its nodes take, see :func:`wheel_tags`.
    """

    python: str
    platforms: tuple[str, ...]


def wheel_tags(glibc: str, machine: str) -> tuple[str, ...]:
    """Return the wheel tags of a Linux with this C library, newest first (PEP 600).

    Raises:
        UserError: it is no version of glibc 2.
    """
    match = re.fullmatch(r"2\.(\d{1,2})", glibc)
    if match is None:
        raise UserError(f"{glibc!r} is no version of glibc; give one such as 2.34.")
    newest = [f"manylinux_2_{minor}_{machine}" for minor in range(int(match[1]), 4, -1)]
    return (*newest, *(f"{old}_{machine}" for old in ("manylinux2014", "manylinux2010")))


def build_bundle(
    source: Path, requirements: Path, target: Target, output: Path, say: Callable[[str], None]
) -> None:
    """Fetch the wheels of a lock, build the worker's own, and pack both with an installer.

    Args:
        source: the worker's project folder.
        requirements: a lock with a hash for every file.
        target: where it will be installed. Markers of the lock are judged on this machine.
        output: the ``.tar`` to write; wheels are compressed already.
        say: told what happens, one sentence a step.

    Raises:
        UserError: the lock is missing, pip failed (the sentence has its last lines), or the
            archive cannot be written.
    """
    if not requirements.is_file():
        raise UserError(f"The lock {requirements} does not exist; name another --requirements.")
    if not output.parent.is_dir():
        raise UserError(f"The folder {output.parent} does not exist; make it, or name another.")
    with tempfile.TemporaryDirectory(prefix="worker-bundle-", dir=output.parent) as name:
        folder = Path(name) / "shard-worker"
        wheels = folder / "wheels"
        wheels.mkdir(parents=True)
        make_environment(Path(name) / "env")
        python = Path(name) / "env" / "bin" / "python"
        say(f"fetching the wheels of {requirements.name} for Python {target.python}")
        tags = [word for tag in target.platforms for word in ("--platform", tag)]
        _pip(
            python,
            [
                *("download", "--dest", str(wheels), "--require-hashes", "--no-deps"),
                *("--only-binary=:all:", "--python-version", target.python, *tags),
                *("--requirement", str(requirements)),
            ],
        )
        say("building the worker's own wheel")
        _pip(python, ["wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)])
        shutil.copy(requirements, folder / "requirements.lock")
        (folder / "install.sh").write_text(INSTALL.replace("@VERSION@", target.python))
        (folder / "SHA256SUMS").write_text(_sums(folder))
        say(f"packing {len(list(wheels.iterdir()))} wheels")
        _pack(folder, output)


def _pip(python: Path, arguments: Sequence[str]) -> None:
    result = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        check=False,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
    )
    if result.returncode:
        tail = "\n".join(result.stderr.strip().splitlines()[-6:])
        raise UserError(f"pip could not {arguments[0]} what the bundle needs:\n{tail}")


def _sums(folder: Path) -> str:
    """Return lines that ``sha256sum --check`` takes."""
    lines = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.append(f"{digest}  {file.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def _pack(folder: Path, output: Path) -> None:
    partial = output.with_name(f".{output.name}.partial")
    try:
        with tarfile.open(partial, "w") as archive:
            archive.add(folder, folder.name, filter=_plain)
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{output} cannot be written: {error.strerror}; free some space.") from None


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who made it and when, so that the same wheels make the same archive."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
