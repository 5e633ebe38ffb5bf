"""``nightshard models …``: what lies in a cluster's models folder."""

import asyncio
import os
import time

import click

from nightshard.cli.reach import ssh_option, transport_to
from nightshard.clusters.model_cleaning import StoredModel, list_models, may_go, remove
from nightshard.clusters.profile import ClusterProfile, load_named
from nightshard.core.settings import Settings

GIB = 1 << 30
cluster_option = click.option("--cluster", default="local", show_default=True)


@click.group()
def models() -> None:
    """List and remove the models that runs have fetched to a cluster."""


@models.command("list")
@cluster_option
@ssh_option
def list_command(cluster: str, ssh: str | None) -> None:
    """List the fetched models, the longest unused first."""
    settings, profile = _profile(cluster)
    found = asyncio.run(_list(profile, ssh, settings))
    for one in sorted(found, key=lambda one: one.used_at):
        click.echo(_line(one))
    click.echo(f"{len(found)} models, {sum(one.size for one in found) / GIB:.1f} GiB")


@models.command()
@cluster_option
@ssh_option
@click.option("--older-than", default=30.0, show_default=True, help="Days without use.")
@click.option("--keep", type=float, help="GiB that may stay; the longest unused go first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(cluster: str, ssh: str | None, older_than: float, keep: float | None, yes: bool) -> None:
    """Remove models that no run has used for long; none of the last two days."""
    settings, profile = _profile(cluster)
    limit = None if keep is None else int(keep * GIB)
    found = asyncio.run(_list(profile, ssh, settings))
    going = may_go(found, time.time(), older_than_days=older_than, keep_bytes=limit)
    for one in going:
        click.echo(_line(one))
    if not going:
        click.echo("Nothing to remove.")
        return
    if not yes:
        click.confirm(f"Remove these {len(going)}?", abort=True)
    asyncio.run(_remove(profile, ssh, settings, going))
    click.echo(f"Removed {sum(one.size for one in going) / GIB:.1f} GiB.")


def _profile(name: str) -> tuple[Settings, ClusterProfile]:
    settings = Settings.from_env(os.environ)
    return settings, load_named(settings.clusters, name, settings.variables(os.environ))


async def _list(profile: ClusterProfile, ssh: str | None, settings: Settings) -> list[StoredModel]:
    async with transport_to(profile, ssh, settings) as transport:
        return await list_models(transport, profile)


async def _remove(
    profile: ClusterProfile, ssh: str | None, settings: Settings, going: list[StoredModel]
) -> None:
    async with transport_to(profile, ssh, settings) as transport:
        await remove(transport, profile, going)


def _line(one: StoredModel) -> str:
    days = (time.time() - one.used_at) / 86400
    return f"{one.size / GIB:8.2f} GiB  {days:6.1f} days  {one.path}"
