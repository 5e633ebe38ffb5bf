"""Claims on blocks, atomic on a shared file system.

A claim is a hard link from the claiming attempt's *lease* to the block's name. link(2) either makes
the name or fails because it exists, also over NFS, so one shard gets a block. It fails too where
the lease is gone, and that shuts out an attempt that was given up: the next attempt, which only the
orchestrator can begin, removes the old lease first, and whatever the old process claims after that
fails. Claims are never given back; they belong to the rank, whose next attempt goes on with them.
"""

import errno
import json
import re
from pathlib import Path

from shard_worker.errors import ClaimHeldError, ConfigError
from shard_worker.fsio import fsync_folder, write_atomic
from shard_worker.layout import ShardLayout

_BLOCK = re.compile(r"\d{5}-\d{4}")
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Board:
    """The run's claims, as one attempt sees and makes them.

    Args:
        layout: the shard.
        attempt: of this process, from 1.
        restarts: how often Slurm requeued its job.
    """

    def __init__(self, layout: ShardLayout, attempt: int, restarts: int = 0) -> None:
        self._folder = layout.blocks
        self._rank = layout.rank
        self._attempt = attempt
        self._lease = self._folder / f"lease-{layout.rank:05d}-a{attempt}-r{restarts}"

    def open(self) -> set[str]:
        """Shut out earlier attempts of this rank and take over what they claimed.

        Returns:
            Names of the blocks that are this rank's.

        Raises:
            ConfigError: the file system has no hard links.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        earlier = list(self._folder.glob(f"lease-{self._rank:05d}-*"))
        content = json.dumps({"rank": self._rank, "attempt": self._attempt}).encode()
        # Before the old leases go: a kill in between must not leave claims without any lease, by
        # which the next attempt knows that there are claims. Whole, since its links are read.
        write_atomic(self._lease, content)
        for lease in earlier:
            if lease != self._lease:
                lease.unlink(missing_ok=True)
        self._probe()
        return held_by(self._folder, self._rank) if earlier else set()

    def claim(self, name: str) -> bool:
        """Claim a block; False where somebody else has it.

        Raises:
            ClaimHeldError: this attempt was given up and a later one has begun.
        """
        target = self._folder / name
        try:
            target.hardlink_to(self._lease)
        except FileExistsError:
            # NFS may have made the link and lost the reply.
            return self._lease.exists() and target.samefile(self._lease)
        except FileNotFoundError:
            raise ClaimHeldError(
                f"attempt {self._attempt} of shard {self._rank} was given up and another has "
                "begun, so it ends here; nothing needs to be done."
            ) from None
        fsync_folder(self._folder)
        return True

    def taken(self) -> set[str]:
        """Return the names of all blocks that anybody has claimed."""
        return claimed(self._folder)

    def _probe(self) -> None:
        probe = self._folder / f".{self._lease.name}.probe"
        probe.unlink(missing_ok=True)
        try:
            probe.hardlink_to(self._lease)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise ConfigError(
                f"{self._folder} lies on a file system without hard links, by which shards share "
                "their work; run with balance: static, or use another workdir."
            ) from None
        probe.unlink()


def claimed(folder: Path) -> set[str]:
    """Return the names of the claimed blocks in a folder of claims."""
    if not folder.is_dir():
        return set()
    return {path.name for path in folder.iterdir() if _BLOCK.fullmatch(path.name)}


def held_by(folder: Path, rank: int) -> set[str]:
    """Return the names of the blocks that a rank has claimed, in whatever attempt."""
    mine = set()
    for name in claimed(folder):
        value = json.loads((folder / name).read_bytes())
        if value["rank"] == rank:
            mine.add(name)
    return mine
