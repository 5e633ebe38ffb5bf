"""Tables of the command line: columns that say how a row reads."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

WIDTH_OF_A_FILE = 200
UNKNOWN = "-"


class Column(NamedTuple):
    """A column of a table: its title, how a row's cell reads, its side.

    ``of_run`` marks what is the same for all scores of a run.
    """

    title: str
    cell: Callable[[Row], str]
    justify: Literal["left", "right"] = "left"
    of_run: bool = False


def table(columns: Iterable[Column], rows: Sequence[Row]) -> Table:
    """Make a table of the columns for which any row has something to say."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold cyan")
    shown = []
    for column in columns:
        cells = [column.cell(row) for row in rows]
        if any(cells):
            # A key that is cut short cannot be pasted, so cells fold and are never cropped.
            made.add_column(column.title, justify=column.justify, overflow="fold")
            shown.append(cells)
    for line in zip(*shown, strict=True):
        made.add_row(*(Text(cell or UNKNOWN) for cell in line))
    return made


def one_line(value: Any) -> str:
    """Render a value as one line; what could steer a terminal shows as U+FFFD."""
    if value is None:
        return ""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )


def standard_output() -> Console:
    """Return a console on standard output, wide where that is a file."""
    # Without a terminal rich would assume 80 columns and break every line of a table in a file.
    to_file = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(file=sys.stdout, width=WIDTH_OF_A_FILE if to_file else None)
