"""A small disk on the cluster's shared file system, and ways to use it up."""

import errno
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = "1m"
INODES = 80


class SmallDisk:
    """A file system of its own that can be filled.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Use up the last byte."""
        with self._filler.open("wb", buffering=0) as file, suppress_full():
            while True:
                file.write(bytes(4096))

    def use_up_inodes(self) -> None:
        """Use up the last inode."""
        self._filler.mkdir()
        with suppress_full():
            for number in itertools.count():
                (self._filler / str(number)).touch()

    def free(self) -> None:
        """Give back what was used up."""
        subprocess.run(["rm", "-rf", self._filler], check=True)


@contextmanager
def suppress_full() -> Iterator[None]:
    """Go on where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a disk of 1 MiB; needs root, or sudo without a password as CI machines have it."""
    folder.mkdir(exist_ok=True)
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={SIZE},nr_inodes={INODES},mode=0777"
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run([*sudo, "umount", "--lazy", folder], check=True)
