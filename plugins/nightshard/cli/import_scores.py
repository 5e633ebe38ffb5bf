"""``nightshard import-scores``: the scores that Evalchemy left."""

import os
from pathlib import Path

import click

from nightshard.core.errors import UserError
from nightshard.core.settings import Settings


@click.command("import-scores")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--database", metavar="URL", help="Evalchemy's own database, a SQLAlchemy URL.")
def import_scores(*, results: tuple[Path, ...], database: str | None) -> None:
    """Take over scores from Evalchemy's RESULTS files, or from its database.

    They keep a mark of where they come from, and a second time adds nothing. To judge Evalchemy's
    answers anew, see `nightshard import`.
    """
    from nightshard.results.database import open_database
    from nightshard.results.predecessor import read_results, runs_from_database
    from nightshard.results.write import record_run

    if not results and database is None:
        raise UserError("Name results files, or Evalchemy's database with --database.")
    runs = [read_results(path) for path in results]
    if database is not None:
        runs += runs_from_database(database)
    engine = open_database(Settings.from_env(os.environ).database_url)
    for run in runs:
        record_run(engine, run)
    scores = sum(len(run.metrics) for run in runs)
    click.echo(f"{len(runs)} runs with {scores} scores are in the results database.")
