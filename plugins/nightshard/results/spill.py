"""Putting a large number of rows into a wanted order with little memory: out to disk and back."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

WINDOW_ROWS = 32_768
"""Rows that come back at a time; their texts have to fit into memory."""

_POSITION = "__position"


class Spill:
    """Takes tables whose rows know their places, and gives them back in order.

    Each table is cut by windows of the wanted order, and each window has a file of its own; what
    is held in memory is one table on the way out and one window on the way back.

    Args:
        schema: of the tables.
        rows: number of rows that will come.
        window: rows of a window.
    """

    def __init__(self, schema: pa.Schema, rows: int, window: int = WINDOW_ROWS) -> None:
        self._schema = schema.append(pa.field(_POSITION, pa.int64()))
        self._window = window
        self._windows = -(-rows // window)
        self._folder = tempfile.TemporaryDirectory(prefix="nightshard-merge-")
        self._parts: list[list[Path]] = [[] for _ in range(self._windows)]
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def add(self, table: pa.Table, positions: "np.ndarray[Any, np.dtype[np.int64]]") -> None:
        """Take a table.

        Args:
            table: some rows.
            positions: place of each in the wanted order.
        """
        order = np.argsort(positions, kind="stable")
        placed = table.append_column(self._schema.field(_POSITION), pa.array(positions))
        # Taking rows out of many chunks is several times slower than out of one.
        placed = placed.combine_chunks().take(pa.array(order, pa.int64()))
        bounds = np.searchsorted(
            positions[order], np.arange(self._windows + 1, dtype=np.int64) * self._window
        )
        self._count += 1
        for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
            if start < stop:
                part = Path(self._folder.name) / f"{number:06d}-{self._count:06d}.arrow"
                with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, self._schema) as out:
                    out.write_table(placed.slice(start, stop - start))
                self._parts[number].append(part)

    def windows(self) -> Iterator[pa.Table]:
        """Give all rows back in the wanted order."""
        for parts in self._parts:
            tables = []
            for part in parts:
                with pa.OSFile(str(part), "rb") as file:
                    tables.append(pa.ipc.open_file(file).read_all())
            whole = pa.concat_tables(tables).combine_chunks()
            order = np.argsort(whole.column(_POSITION).to_numpy(), kind="stable")
            yield whole.take(pa.array(order, pa.int64())).drop_columns([_POSITION])
            for part in parts:
                part.unlink()
