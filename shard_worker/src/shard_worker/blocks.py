"""Cutting a shard's requests into blocks, and choosing which block is next. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

SHARE = 16
"""A block holds this part of what is left: few claims while there is much to do, and single
requests at the end, where balance is made. Guided self-scheduling: Polychronopoulos and Kuck, IEEE
Transactions on Computers C-36(12), 1987."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of one shard's input.

    Attributes:
        rank: the shard for which it was planned.
        number: place among that shard's blocks, from 0.
        start: first row.
        stop: row after the last.
        cost: expected output tokens of all its rows.
    """

    rank: int
    number: int
    start: int
    stop: int
    cost: float

    @property
    def name(self) -> str:
        """For example ``00003-0012``."""
        return f"{self.rank:05d}-{self.number:04d}"

    @property
    def rows(self) -> int:
        """Number of requests."""
        return self.stop - self.start


def cut(rank: int, costs: Sequence[float]) -> list[Block]:
    """Cut a shard's input into blocks; every worker cuts alike.

    Args:
        rank: of the shard.
        costs: expected output tokens of each row, in the input's order, costliest first.

    Returns:
        Blocks that cover every row once, in order.
    """
    return [
        Block(rank, number, start, stop, sum(costs[start:stop]))
        for number, (start, stop) in enumerate(_bounds(len(costs)))
    ]


def _bounds(rows: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < rows:
        size = max(1, (rows - start) // SHARE)
        yield start, start + size
        start += size


@dataclass(frozen=True, slots=True)
class Cut:
    """All blocks of a run, by the rank for which they were planned."""

    blocks: Mapping[int, Sequence[Block]]

    def names(self) -> set[str]:
        """Return the names of all blocks."""
        return {block.name for blocks in self.blocks.values() for block in blocks}

    def named(self, name: str) -> Block:
        """Return a block by its name.

        Raises:
            KeyError: there is none.
        """
        rank, _, number = name.partition("-")
        blocks = self.blocks[int(rank)]
        if int(number) >= len(blocks):
            raise KeyError(name)
        return blocks[int(number)]

    def next_block(
        self, rank: int, taken: Set[str], room: int, may_take: Callable[[Block], bool]
    ) -> Block | None:
        """Choose what a shard with room takes next.

        Its own blocks come first, in their order. Then the shard with the most work left gives up
        one: the first that fits the room, so that no more is held than can run, else its smallest.

        Args:
            rank: of the shard that has room.
            taken: names of the blocks that somebody has claimed.
            room: requests that could run at once beside those that run.
            may_take: whether another shard's block can be run here.

        Returns:
            A block that nobody had claimed, None if there is nothing to take.
        """
        for block in self.blocks.get(rank, ()):
            if block.name not in taken:
                return block
        if room < 1:
            return None
        left = {
            other: [block for block in blocks if block.name not in taken and may_take(block)]
            for other, blocks in self.blocks.items()
            if other != rank
        }
        most = max(
            (other for other, blocks in left.items() if blocks),
            key=lambda other: (sum(block.cost for block in left[other]), -other),
            default=None,
        )
        if most is None:
            return None
        fitting = (block for block in left[most] if block.rows <= room)
        return next(fitting, min(left[most], key=lambda block: block.rows))
