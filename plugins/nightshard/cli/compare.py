"""``nightshard compare``: is one checkpoint better than another?"""

import json
import os
from collections.abc import Callable

import click

from nightshard.cli.tables import Column, Row, one_line, standard_output, table
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
    shown = standard_output()
    shown.print(table(_COLUMNS, rows))
    for row in rows:
        if row["note"]:
            shown.print(f"{row['benchmark']}: {row['note']}.", markup=False, highlight=False)


def _number(name: str, form: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.get(name)
        return "" if value is None else format(value, form)

    return cell


def _interval(row: Row) -> str:
    return f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}" if "value" in row else ""


_COLUMNS = (
    Column("Benchmark", lambda row: one_line(row["benchmark"])),
    Column("First", _number("first", ".3f"), "right"),
    Column("Second", _number("second", ".3f"), "right"),
    Column("Difference", _number("value", "+.3f"), "right"),
    Column("95 % interval", _interval, "right"),
    Column("p", _number("p_adjusted", ".4f"), "right"),
    Column("Better", _number("better", "d"), "right"),
    Column("Worse", _number("worse", "d"), "right"),
    Column("Detectable", _number("detectable", ".3f"), "right"),
    Column("Verdict", lambda row: row["verdict"] if "value" in row else ""),
)
