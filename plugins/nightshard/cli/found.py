"""``nightshard found``: which checkpoints the sources of ``nightly`` have in an interval."""

import os
import sys

import click

from nightshard.checkpoints.config import FolderSource, read_nightly
from nightshard.checkpoints.found import SourceError
from nightshard.cli.reach import ssh_option, transport_to
from nightshard.clusters.profile import load_named
from nightshard.core.settings import Settings


@click.command()
@click.option("--since", help="As 2026-01-31 or 2026-01-31T02:00Z. Default: a day before --until.")
@click.option("--until", help="Default: now.")
@ssh_option
def found(since: str | None, until: str | None, ssh: str | None) -> None:
    """Ask the sources of include/nightly.yaml what appeared; starts nothing.

    Exit code 1 where a source cannot be reached.
    """
    from nightshard.orchestration.steps import finding

    settings = Settings.from_env(os.environ)
    config = read_nightly(settings.nightly, settings.variables(os.environ)).required()
    interval = finding.interval_asked(since, until, None, None)
    broken = 0
    for name, source in config.sources.items():
        if isinstance(source, FolderSource):
            cluster = str(config.asked_of(name)["cluster"])
            profile = load_named(settings.clusters, cluster, settings.variables(os.environ))
            transport_to(profile, ssh, settings)
        try:
            ones = finding.find(name, interval)
        except SourceError as error:
            broken += 1
            click.secho(f"{name}: {error}", fg="red")
            continue
        click.echo(f"{name}: {len(ones) or 'nothing'} new")
        for one in ones:
            its = one["found"]
            click.echo(f"  {its['appeared']}  {its['model']} {its['revision'] or ''}".rstrip())
    if broken:
        sys.exit(1)
