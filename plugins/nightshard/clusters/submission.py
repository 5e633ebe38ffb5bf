"""What is submitted as one array: a whole run, a part of a large one, or one shard again. Pure.

Slurm's MaxArraySize bounds the largest index and a site bounds how many elements a user may have
in the queue, so a large run becomes several arrays. An array begins at index 0 again: its element
of index i runs the ``per_job`` shards from rank ``first_rank + i * per_job`` on, one in most cases
and several where a site gives whole nodes.
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
        first_rank: first rank of array index 0.
        label: names it in the run: ``a1``, ``a1-c2`` for part 2, ``a2-r17`` for rank 17 again,
            ``a2-r16-19`` for the shards of one job again.
        per_job: shards of one element.
    """

    layout: RunLayout
    attempt: int
    ranks: range
    first_rank: int
    label: str
    per_job: int = 1

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
        first, last = (
            (rank - self.first_rank) // self.per_job for rank in (self.ranks[0], self.ranks[-1])
        )
        return str(first) if first == last else f"{first}-{last}"

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return -(-len(self.ranks) // self.per_job)


LABEL = r"a(?P<attempt>[1-9]\d*)(?:-c(?P<chunk>\d+)|-r(?P<rank>\d+)(?:-(?P<last>\d+))?)?"
"""What :attr:`Submission.label` looks like."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a submission's label says.

    Attributes:
        attempt: from 1.
        chunk: part of a large run, else None.
        rank: the only shard, or the first of one job's shards, else None.
        last: the last of one job's shards.
    """

    attempt: int
    chunk: int | None = None
    rank: int | None = None
    last: int | None = None

    @property
    def ranks(self) -> range | None:
        """The shards that it names, None where it names none."""
        if self.rank is None:
            return None
        return range(self.rank, (self.rank if self.last is None else self.last) + 1)

    def covers(self, rank: int, intent: Intent) -> bool:
        """Whether a submission has a shard: it names those of one job, or is a range of jobs."""
        if self.ranks is not None:
            return rank in self.ranks
        return intent.first_rank <= rank < intent.first_rank + intent.tasks


def parse_label(text: str) -> Label | None:
    """Read ``a1``, ``a1-c2``, ``a2-r17`` or ``a2-r16-19``; None for other texts."""
    match = re.fullmatch(LABEL, text)
    if match is None:
        return None
    parts = ("chunk", "rank", "last")
    known = {name: None if match[name] is None else int(match[name]) for name in parts}
    return Label(int(match["attempt"]), **known)


def array_size(
    world_size: int, max_array_size: int, max_submitted: int | None, per_job: int = 1
) -> int:
    """Return how many shards an array of a run may have, a multiple of ``per_job`` or all.

    Args:
        world_size: number of shards.
        max_array_size: Slurm's MaxArraySize; the largest index is one less.
        max_submitted: how many elements a user may have in the queue, None for any number.
        per_job: shards of one element.
    """
    elements = max(1, min(max_array_size, max_submitted or max_array_size))
    return min(world_size, elements * per_job)


def first_submissions(
    layout: RunLayout, world_size: int, size: int, per_job: int = 1
) -> list[Submission]:
    """Cut a run's first attempt into arrays of at most ``size`` shards, see :func:`array_size`."""
    return [_part(layout, world_size, size, first, per_job) for first in range(0, world_size, size)]


def _part(layout: RunLayout, world_size: int, size: int, first: int, per_job: int) -> Submission:
    label = "a1" if world_size <= size else f"a1-c{first // size}"
    ranks = range(first, min(first + size, world_size))
    return Submission(layout, 1, ranks, first, label, per_job)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a run, and all that running it takes.

    Attributes:
        layout: the run's remote paths.
        rank: from 0.
        world_size: number of shards of the run.
        rows: answers that it owes.
        fingerprint: fingerprint that its manifest must carry.
        array_size: most shards of one array of the run.
        worker: remote path of the staged worker.
        max_job_minutes: time limit of one attempt.
        per_job: shards that share a job.
    """

    layout: RunLayout
    rank: int
    world_size: int
    rows: int
    fingerprint: str
    array_size: int
    worker: str
    max_job_minutes: int
    per_job: int = 1

    @property
    def first_rank(self) -> int:
        """First rank of array index 0 in each array with this shard."""
        return self.rank - self.rank % self.array_size

    @property
    def index(self) -> int:
        """Its array index in each array."""
        return (self.rank - self.first_rank) // self.per_job

    @property
    def companions(self) -> range:
        """The ranks that share its jobs, itself among them."""
        end = min(self.first_rank + self.array_size, self.world_size)
        first = self.first_rank + self.index * self.per_job
        return range(first, min(first + self.per_job, end))

    def submission(self, attempt: int) -> Submission:
        """Return the array with this shard: of many jobs at first, later of its job alone."""
        size, first_rank = self.array_size, self.first_rank
        if attempt == 1:
            return _part(self.layout, self.world_size, size, first_rank, self.per_job)
        ranks = self.companions
        which = f"{ranks[0]}" if self.per_job == 1 else f"{ranks[0]}-{ranks[-1]}"
        label = f"a{attempt}-r{which}"
        return Submission(self.layout, attempt, ranks, first_rank, label, self.per_job)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "layout": self.layout.to_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Shard":
        """Build from :meth:`to_dict`'s form."""
        return cls(**{**value, "layout": RunLayout.from_dict(value["layout"])})
