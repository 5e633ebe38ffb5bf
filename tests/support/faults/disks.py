"""A small disk on the cluster's shared file system, and ways to use it up."""

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from support.faults.site import Site

OPTIONS = "size=1m,nr_inodes=80,mode=0777"

_DF = """
[ -e "{flag}" ] || exec "$real" "$@"
echo "Filesystem Total Used Available Capacity Mounted"
case "$*" in
  *i*) grep -q inodes "{flag}" && echo "small 80 80 0 100% /" || echo "small 80 20 60 25% /" ;;
  *) grep -q inodes "{flag}" && echo "small 1024 24 1000 3% /" || echo "small 1024 1024 0 100% /" ;;
esac
"""
_PYTHON = """\
#!/bin/sh
shift 2
exec {python} -c '
import errno, os, sys
from shard_worker import parts, fsio
usual = fsio.write_atomic
def write_atomic(path, data, **options):
    if os.path.exists("{flag}"):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    usual(path, data, **options)
parts.write_atomic = write_atomic
from shard_worker.cli import main
sys.exit(main(sys.argv[1:]))
' "$@"
"""


class Disk(Protocol):
    """A disk that can be filled.

    Attributes:
        changes: of the profile of a run that is to live on it.
    """

    changes: dict[str, Any]

    def fill(self) -> None:
        """Use up the last byte."""

    def use_up_inodes(self) -> None:
        """Use up the last inode."""

    def free(self) -> None:
        """Give back what was used up."""


class SmallDisk:
    """A mounted file system of 1 MiB."""

    def __init__(self, folder: Path) -> None:
        self.changes: dict[str, Any] = {"workdir": str(folder)}
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file, _until_full():
            while True:
                file.write(bytes(4096))

    def use_up_inodes(self) -> None:
        self._filler.mkdir()
        with _until_full():
            for number in itertools.count():
                (self._filler / str(number)).touch()

    def free(self) -> None:
        subprocess.run(["rm", "-rf", self._filler], check=True)


class PretendedDisk:
    """The same where nobody may mount: ``df`` and the worker's writes say that the disk is full."""

    def __init__(self, flag: Path, python: Path) -> None:
        self.changes: dict[str, Any] = {"worker": {"python": str(python)}}
        self._flag = flag

    def fill(self) -> None:
        self._flag.write_text("space\n")

    def use_up_inodes(self) -> None:
        self._flag.write_text("inodes\n")

    def free(self) -> None:
        self._flag.unlink()


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def mounting() -> Sequence[str] | None:
    """Return what stands before ``mount``, nothing for root; None where one may not mount."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    probe = [*sudo, "unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        found = subprocess.run(probe, capture_output=True, check=False)
    except OSError:
        return None
    return sudo if found.returncode == 0 else None


@contextmanager
def small_disk(site: Site) -> Iterator[Disk]:
    """Mount a small disk, as root or by sudo without a password; elsewhere pretend one."""
    sudo = mounting()
    shared = site.info.shared
    if sudo is None:
        with _pretended(site, shared / "disk-is-full", shared / "python-on-a-small-disk") as disk:
            yield disk
        return
    folder = shared / "small"
    folder.mkdir(exist_ok=True)
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", OPTIONS, "tmpfs", folder], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run([*sudo, "umount", "--lazy", folder], check=True)


@contextmanager
def _pretended(site: Site, flag: Path, python: Path) -> Iterator[Disk]:
    python.write_text(_PYTHON.format(python=sys.executable, flag=flag))
    python.chmod(0o755)
    with site.shim("df", _DF.format(flag=flag)):
        try:
            yield PretendedDisk(flag, python)
        finally:
            flag.unlink(missing_ok=True)
