"""What is submitted as one array: a whole run, a part of a large one, or one shard again. Pure.

Slurm's MaxArraySize bounds the largest index and a site bounds how many elements a user may have
in the queue, so a large run becomes several arrays. An array begins at index 0 again, so that the
rank of an element is its index plus the array's ``first_rank``.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from nightshard.clusters.documents import Intent
from nightshard.clusters.layout import RunLayout


@dataclass(frozen=True, slots=True)
class Submission:
    """One array of one attempt.

    Attributes:
        layout: the run's remote paths.
        attempt: 1 for the first.
        ranks: the shards that it runs.
        first_rank: rank of array index 0.
        label: names it in the run: ``a1``, ``a1-c2`` for part 2, ``a2-r17`` for rank 17 again.
    """

    layout: RunLayout
    attempt: int
    ranks: range
    first_rank: int
    label: str

    @property
    def job_name(self) -> str:
        """The key by which Slurm knows it."""
        return self.layout.job_name(self.label)

    @property
    def script(self) -> PurePosixPath:
        """Its batch script."""
        return self.layout.script(self.label)

    @property
    def intent(self) -> PurePosixPath:
        """The file that says that it is about to be submitted, later what became of it."""
        return self.layout.submission(self.label)

    @property
    def indices(self) -> str:
        """Its array indices as ``sbatch --array`` takes them."""
        first, last = self.ranks[0] - self.first_rank, self.ranks[-1] - self.first_rank
        return str(first) if first == last else f"{first}-{last}"


LABEL = r"a(?P<attempt>[1-9]\d*)(?:-c(?P<chunk>\d+)|-r(?P<rank>\d+))?"
"""What :attr:`Submission.label` looks like."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a submission's label says.

    Attributes:
        attempt: from 1.
        chunk: part of a large run, else None.
        rank: the only shard, else None.
    """

    attempt: int
    chunk: int | None = None
    rank: int | None = None

    def covers(self, rank: int, intent: Intent) -> bool:
        """Whether a submission has a shard: it names its only one, or is a range of them."""
        if self.rank is not None:
            return self.rank == rank
        return intent.first_rank <= rank < intent.first_rank + intent.tasks


def parse_label(text: str) -> Label | None:
    """Read ``a1``, ``a1-c2`` or ``a2-r17``; None for other texts."""
    match = re.fullmatch(LABEL, text)
    if match is None:
        return None
    chunk, rank = match["chunk"], match["rank"]
    return Label(
        attempt=int(match["attempt"]),
        chunk=None if chunk is None else int(chunk),
        rank=None if rank is None else int(rank),
    )


def array_size(world_size: int, max_array_size: int, max_submitted: int | None) -> int:
    """Return how many elements an array of a run may have.

    Args:
        world_size: number of shards.
        max_array_size: Slurm's MaxArraySize; the largest index is one less.
        max_submitted: how many elements a user may have in the queue, None for any number.
    """
    return max(1, min(world_size, max_array_size, max_submitted or world_size))


def first_submissions(layout: RunLayout, world_size: int, size: int) -> list[Submission]:
    """Cut a run's first attempt into arrays of at most ``size`` elements."""
    return [_part(layout, world_size, size, first) for first in range(0, world_size, size)]


def _part(layout: RunLayout, world_size: int, size: int, first: int) -> Submission:
    label = "a1" if world_size <= size else f"a1-c{first // size}"
    return Submission(layout, 1, range(first, min(first + size, world_size)), first, label)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a run, and all that running it takes.

    Attributes:
        layout: the run's remote paths.
        rank: from 0.
        world_size: number of shards of the run.
        rows: answers that it owes.
        fingerprint: fingerprint that its manifest must carry.
        array_size: most elements of one array of the run.
        worker: remote path of the staged worker.
        max_job_minutes: time limit of one attempt.
    """

    layout: RunLayout
    rank: int
    world_size: int
    rows: int
    fingerprint: str
    array_size: int
    worker: str
    max_job_minutes: int

    @property
    def first_rank(self) -> int:
        """Rank of array index 0 in each array with this shard."""
        return self.rank - self.rank % self.array_size

    def submission(self, attempt: int) -> Submission:
        """Return the array with this shard: a shared one at first, later one of its own."""
        if attempt == 1:
            return _part(self.layout, self.world_size, self.array_size, self.first_rank)
        return Submission(
            self.layout,
            attempt,
            range(self.rank, self.rank + 1),
            self.first_rank,
            f"a{attempt}-r{self.rank}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        layout = {"workdir": str(self.layout.workdir), "run_key": self.layout.run_key}
        return {**asdict(self), "layout": layout}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Shard":
        """Build from :meth:`to_dict`'s form."""
        layout = value["layout"]
        return cls(
            **{
                **value,
                "layout": RunLayout(PurePosixPath(layout["workdir"]), layout["run_key"]),
            }
        )
