"""``nightshard compare``: is one checkpoint better than another?"""

import json
import os
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nightshard.core.settings import Settings


@click.command()
@click.argument("first", metavar="FIRST")
@click.argument("second", metavar="SECOND")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def compare(*, first: str, second: str, as_json: bool) -> None:
    """Compare run SECOND with run FIRST, paired by problem.

    Keys are those of `nightshard results`. p is two-sided, adjusted over the benchmarks by Holm.
    """
    from nightshard.results.compare import compare_runs

    found = compare_runs(Settings.from_env(os.environ).store, first, second)
    rows = [one.to_dict() for one in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold cyan")
    table.add_column("Benchmark")
    titles = (
        "First",
        "Second",
        "Difference",
        "95 % interval",
        "p",
        "Better",
        "Worse",
        "Detectable",
    )
    for title in titles:
        table.add_column(title, justify="right")
    table.add_column("Verdict")
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    console = Console()
    console.print(table)
    for row in rows:
        if row["note"]:
            console.print(f"{row['benchmark']}: {row['note']}.", markup=False, highlight=False)


def _cells(row: dict[str, Any]) -> list[str]:
    if "value" not in row:
        return [row["benchmark"], *["-"] * 8, "-"]
    detectable = row["detectable"]
    return [
        row["benchmark"],
        f"{row['first']:.3f}",
        f"{row['second']:.3f}",
        f"{row['value']:+.3f}",
        f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}",
        f"{row['p_adjusted']:.4f}",
        str(row["better"]),
        str(row["worse"]),
        "-" if detectable is None else f"{detectable:.3f}",
        row["verdict"],
    ]
