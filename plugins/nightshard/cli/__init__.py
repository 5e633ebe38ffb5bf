"""The command line: ``nightshard …``."""

import sys
from collections.abc import Sequence

import click

from nightshard import __version__
from nightshard.cli.cancel import cancel
from nightshard.cli.cluster import cluster
from nightshard.cli.compare import compare
from nightshard.cli.doctor import doctor
from nightshard.cli.found import found
from nightshard.cli.gate import gate
from nightshard.cli.import_answers import import_answers
from nightshard.cli.import_scores import import_scores
from nightshard.cli.launch import launch
from nightshard.cli.local import local_cluster, quickstart, stop_everything, worker_env
from nightshard.cli.logs import logs
from nightshard.cli.models import models
from nightshard.cli.publish import publish
from nightshard.cli.rescore import rescore
from nightshard.cli.results import db, results
from nightshard.cli.serve import serve
from nightshard.cli.status import status
from nightshard.cli.sweep import sweep
from nightshard.cli.worker_bundle import worker_bundle
from nightshard.core.errors import NightshardError


@click.group(
    context_settings={
        # Old lines are pasted with --model_name and --num_shards.
        "token_normalize_func": lambda name: name.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    }
)
@click.version_option(__version__)
def cli() -> None:
    """Evaluate language-model checkpoints on Slurm clusters."""


for command in (
    *(launch, sweep, found, status, logs, cancel),
    *(results, rescore, compare, gate, publish, serve, db, import_answers, import_scores),
    *(doctor, cluster, models, local_cluster, quickstart, stop_everything),
    *(worker_env, worker_bundle),
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an expected error is one sentence and exit code 1."""
    try:
        cli(arguments)
    except NightshardError as error:
        click.secho(f"nightshard: {error}", fg="red", err=True)
        sys.exit(1)
