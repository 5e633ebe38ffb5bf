"""``nightshard publish``: a run as a folder with a card."""

import os
from pathlib import Path

import click

from nightshard.core.settings import Settings


@click.command()
@click.argument("run_key", metavar="RUN")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def publish(*, run_key: str, folder: Path) -> None:
    """Write RUN's answers, verdicts and scores into FOLDER, with a card that explains them.

    The folder has the form of a dataset of the Hub, one configuration a benchmark. Questions that
    their owners let nobody publish are left out, and gold answers always.
    """
    from nightshard.publish.folder import write_folder
    from nightshard.results.database import open_database
    from nightshard.results.read import get_run
    from nightshard.results.store import RunStore

    settings = Settings.from_env(os.environ)
    run = get_run(open_database(settings.database_url), run_key)
    gated = write_folder(RunStore(settings.store, run_key), run, folder)
    click.echo(f"{run_key}: written to {folder}")
    if gated:
        click.echo(f"  without the questions of {', '.join(gated)}, which may not be published")
