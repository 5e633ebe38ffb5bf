"""``nightshard cluster …``: a new profile, and the pages on clusters."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from nightshard.cli.reach import endpoint_of, ssh_option, transport_by_ssh
from nightshard.clusters import guide as guides
from nightshard.clusters.login_errors import Endpoint
from nightshard.clusters.profile import PROFILE_NAME, load_named, profile_names
from nightshard.clusters.survey import Answers, Survey, propose, take_survey
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings

HEAD = """\
# {title}, as `nightshard cluster new` found it on {host}. docs/clusters.md explains each key.
"""


@click.group()
def cluster() -> None:
    """Add a cluster, and keep the pages on clusters true."""


@cluster.command()
@click.argument("name")
@ssh_option
@click.option("--title", help="For people. Default: NAME.")
@click.option("--workdir", help="A folder on the file system that all nodes share.")
@click.option("--partition", help="A partition with GPUs.")
@click.option("--account", help="What Slurm charges.")
@click.option("--python", help="The worker's Python there.")
@click.option("--models", help="The folder of the models there.")
@click.option("--yes", is_flag=True, help="Ask nothing: take what was found.")
def new(name: str, ssh: str | None, yes: bool, **given: str | None) -> None:
    """Look at a cluster from its login node, and write its profile and its page.

    What its Slurm cannot tell is asked. Nothing that exists is overwritten.
    """
    settings = Settings.from_env(os.environ)
    profile_file, page = settings.clusters / f"{name}.yaml", guide_page(settings, name)
    if not PROFILE_NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name; use lower-case letters, digits, - and _.")
    if profile_file.exists():
        raise UserError(f"{profile_file} is there already; remove it, or choose another name.")
    if ssh is None:
        if yes:
            raise UserError("Give --ssh USER@HOST, the login node to look at.")
        ssh = click.prompt("Login node ([USER@]HOST[:PORT])")
    endpoint = endpoint_of(ssh)
    survey = asyncio.run(_survey(endpoint))
    answers = _answers(name, survey, given, ask=not yes)
    text = HEAD.format(title=answers.title, host=survey.host) + yaml.safe_dump(
        propose(survey, answers), sort_keys=False, allow_unicode=True
    )
    settings.clusters.mkdir(parents=True, exist_ok=True)
    profile_file.write_text(text, encoding="utf-8")
    profile = load_named(settings.clusters, name, settings.variables(os.environ))
    click.echo(f"Wrote {profile_file}")
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(guides.new_page(profile), encoding="utf-8")
        click.echo(f"Wrote {page}")
    where = {"host": endpoint.host, "login": endpoint.username, "port": endpoint.port}
    click.echo("Add the connection to Airflow, with the host's key (docs/connections.md):")
    click.echo(f"  airflow connections add {answers.connection} \\")
    click.echo(f"    --conn-json '{json.dumps({'conn_type': 'ssh', **where})}'")
    click.echo(f"Then: nightshard doctor --cluster {name} --ssh {ssh}")


async def _survey(endpoint: Endpoint) -> Survey:
    async with transport_by_ssh(endpoint) as transport:
        return await take_survey(transport)


def _answers(name: str, survey: Survey, given: dict[str, str | None], *, ask: bool) -> Answers:
    """Take what was given, else what was found, and ask a person about the rest."""
    root = next(iter(survey.folders.values()), "")
    work = given["workdir"] or (f"{root}/nightshard" if root else "")

    def choose(key: str, question: str, found: Any) -> str:
        if given.get(key):
            return str(given[key])
        value = str(click.prompt(question, default=found or None)) if ask else str(found or "")
        if not value:
            raise UserError(f"{question} is not known; give --{key}.")
        return value

    partitions = [one.name for one in survey.partitions]
    for one in survey.partitions:
        shared = "shared" if one.shared else "whole"
        click.echo(f"  {one.name}: {one.nodes} nodes of {one.gpus} GPUs, {shared}")
    partition = choose("partition", "Partition", partitions[0] if partitions else "")
    account = given["account"] or (survey.accounts[0] if survey.accounts else None)
    if ask and not given["account"] and len(survey.accounts) > 1:
        account = click.prompt("Account", type=click.Choice(survey.accounts), default=account)
    work = choose("workdir", "Work folder", work)
    parent = str(Path(work).parent)
    return Answers(
        name=name,
        title=given["title"] or name,
        connection=f"nightshard_{name}".replace("-", "_"),
        workdir=work,
        partition=partition,
        account=account,
        python=choose("python", "The worker's Python", f"{parent}/worker-env/bin/python"),
        models=choose("models", "Folder of the models", f"{parent}/models"),
    )


@cluster.command()
@click.argument("names", nargs=-1)
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 where a page is old.")
def guide(names: tuple[str, ...], check: bool) -> None:
    """Write the part of each cluster's page that follows from its profile. Default: all."""
    settings = Settings.from_env(os.environ)
    old = []
    for name in names or profile_names(settings.clusters):
        profile = load_named(settings.clusters, name, settings.variables({}))
        page = guide_page(settings, name)
        there = page.read_text("utf-8") if page.exists() else guides.new_page(profile)
        text = guides.refreshed(there, profile)
        if page.exists() and text == there:
            continue
        old.append(name)
        if not check:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
            click.echo(f"Wrote {page}")
    if check and old:
        click.echo(f"Old: {', '.join(old)}; run `nightshard cluster guide`.", err=True)
        sys.exit(1)


def guide_page(settings: Settings, name: str) -> Path:
    """Return the file of the page on a cluster."""
    return settings.home / "docs" / "clusters" / f"{name}.md"
