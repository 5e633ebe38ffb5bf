"""What a shard runs next: its own requests, or also those that others have not begun."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from shard_worker.blocks import Block, Cut, cut
from shard_worker.board import Board
from shard_worker.errors import ConfigError
from shard_worker.layout import ShardLayout
from shard_worker.rows import Request, read_requests

log = logging.getLogger(__name__)

Fits = Callable[[Request], bool]


class Feed(Protocol):
    """Hands out requests.

    Attributes:
        share: number of requests that were planned for this shard.
    """

    share: int

    def anything(self) -> bool:
        """Tell whether something may be left to run, before an engine is loaded for it."""

    def more(self, room: int, spare: int, fits: Fits) -> Sequence[Request]:
        """Return requests to run next, none where nothing is left for this shard.

        Args:
            room: requests that the engine would take beside those that it has.
            spare: requests of other shards that it would take; at most ``room``.
            fits: whether the engine can run another shard's request.
        """

    def expected(self) -> int:
        """Return how many answers this shard will have, as far as it is known now."""

    def known(self) -> Sequence[Request]:
        """Return the requests for which the engine must be made ready."""

    def owed(self) -> Sequence[Request]:
        """Return the requests whose answers make up this shard's output, in order."""

    def blocks(self) -> tuple[str, ...] | None:
        """Return the names of the blocks that it claimed, None where there are no blocks."""

    def without_work(self) -> Sequence[int]:
        """Return the other ranks all of whose requests have been claimed by somebody."""


class OwnRequests:
    """Every shard keeps to the requests of its own input.

    Args:
        requests: the input.
        answered: ids that need not be run.
    """

    def __init__(self, requests: Sequence[Request], answered: Collection[str]) -> None:
        self.share = len(requests)
        self._requests = requests
        self._left = [one for one in requests if one.request_id not in answered]

    def anything(self) -> bool:
        """See :class:`Feed`."""
        return bool(self._left)

    def more(self, room: int, spare: int, fits: Fits) -> Sequence[Request]:
        """See :class:`Feed`."""
        taken, self._left = self._left[:room], self._left[room:]
        return taken

    def expected(self) -> int:
        """See :class:`Feed`."""
        return len(self._requests)

    def known(self) -> Sequence[Request]:
        """See :class:`Feed`."""
        return self._requests

    def owed(self) -> Sequence[Request]:
        """See :class:`Feed`."""
        return self._requests

    def blocks(self) -> tuple[str, ...] | None:
        """See :class:`Feed`."""
        return None

    def without_work(self) -> Sequence[int]:
        """See :class:`Feed`."""
        return ()


class SharedRequests:
    """A shard takes blocks: its own first, then those that other shards have not begun.

    Args:
        layout: the shard.
        board: the claims, opened.
        mine: names of the blocks that earlier attempts of this shard claimed.
        requests: the shard's own input.
        answered: ids that need not be run.
    """

    def __init__(
        self,
        layout: ShardLayout,
        board: Board,
        mine: Collection[str],
        requests: Sequence[Request],
        answered: Collection[str],
    ) -> None:
        self.share = len(requests)
        self._layout = layout
        self._board = board
        self._answered = answered
        self._inputs: dict[int, Sequence[Request]] = {layout.rank: requests}
        self._cut = Cut(
            {
                rank: cut(rank, [one.cost for one in requests])
                if rank == layout.rank
                else cut(rank, read_costs(replace(layout, rank=rank)))
                for rank in range(layout.world_size)
            }
        )
        self._unfit: set[str] = set()
        self._nothing_left = False  # for good: claims are never given back
        self._taken = board.taken()
        self._mine: list[Block] = []
        self._left: list[Request] = []
        for name in sorted(mine):
            self._take(self._cut.named(name))

    def anything(self) -> bool:
        """See :class:`Feed`."""
        return bool(self._left) or bool(self._cut.names() - self._taken)

    def more(self, room: int, spare: int, fits: Fits) -> Sequence[Request]:
        """See :class:`Feed`."""
        while not self._left and self._claim(spare, fits):
            pass
        taken, self._left = self._left[:room], self._left[room:]
        return taken

    def expected(self) -> int:
        """See :class:`Feed`: the rows of its claimed blocks and of its own that are open."""
        own = self._cut.blocks[self._layout.rank]
        open_rows = sum(block.rows for block in own if block.name not in self._taken)
        return open_rows + sum(block.rows for block in self._mine)

    def known(self) -> Sequence[Request]:
        """See :class:`Feed`."""
        own = self._inputs[self._layout.rank]
        taken = [block for block in self._mine if block.rank != self._layout.rank]
        return [*own, *(request for block in taken for request in self._rows(block))]

    def owed(self) -> Sequence[Request]:
        """See :class:`Feed`."""
        return [
            request
            for block in sorted(self._mine, key=lambda block: block.name)
            for request in self._rows(block)
        ]

    def blocks(self) -> tuple[str, ...] | None:
        """See :class:`Feed`."""
        return tuple(sorted(block.name for block in self._mine))

    def without_work(self) -> Sequence[int]:
        """See :class:`Feed`."""
        self._taken = self._board.taken()
        return [
            rank
            for rank, blocks in self._cut.blocks.items()
            if rank != self._layout.rank and all(one.name in self._taken for one in blocks)
        ]

    def _claim(self, spare: int, fits: Fits) -> bool:
        """Try for one block; False if there is none to be had."""
        if self._nothing_left:
            return False

        def may_take(block: Block) -> bool:
            return block.name not in self._unfit

        block = self._cut.next_block(self._layout.rank, self._taken, spare, may_take)
        if block is None:
            self._nothing_left = spare > 0
            return False
        if block.rank != self._layout.rank:
            # The listing may be old by now, and a claim that fails costs a round trip each.
            self._taken = self._board.taken()
            if block.name in self._taken:
                return True
            if not all(fits(request) for request in self._rows(block)):
                self._unfit.add(block.name)
                return True
        if self._board.claim(block.name):
            self._take(block)
        self._taken = self._taken | {block.name}
        return True

    def _take(self, block: Block) -> None:
        self._mine.append(block)
        self._left += [one for one in self._rows(block) if one.request_id not in self._answered]
        if block.rank != self._layout.rank:
            log.info("took block %s of shard %d: %d requests", block.name, block.rank, block.rows)

    def _rows(self, block: Block) -> Sequence[Request]:
        if block.rank not in self._inputs:
            self._inputs[block.rank] = read_requests(replace(self._layout, rank=block.rank).inputs)
        return self._inputs[block.rank][block.start : block.stop]


def read_costs(layout: ShardLayout) -> list[float]:
    """Read the estimated cost of each row of a shard's input, and nothing else of it.

    Raises:
        ConfigError: the input is missing or torn.
    """
    try:
        table = pq.read_table(layout.inputs, columns=["cost", "sampling"])
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{layout.inputs} cannot be read ({reason}), but shards that share their work need "
            "every shard's input; stage the run again."
        ) from None
    return [float(row["cost"] or row["sampling"]["max_tokens"]) for row in table.to_pylist()]
