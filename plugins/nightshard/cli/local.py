"""Everything on one machine: the local cluster, the local Airflow, the first run."""

import json
import os
import sys

import click
import psutil
from rich.console import Console
from rich.markup import escape

from nightshard.core.settings import Settings
from nightshard.local.airflow import AirflowInfo
from nightshard.local.cluster import LocalCluster
from nightshard.local.info import ClusterInfo
from nightshard.local.stack import LocalStack, cluster_root

QUICKSTART_SHARDS = 2


def say(sentence: str) -> None:
    """Tell a person of one step of something that takes long."""
    Console(stderr=True).print(
        f"[bold cyan]»[/] {escape(sentence)}", highlight=False, soft_wrap=True
    )


def local_api_access(settings: Settings) -> dict[str, str] | None:
    """Return address and login of this machine's own Airflow, None where it does not run.

    An Airflow that is slow or restarts a part of its own is there all the same.
    """
    info = AirflowInfo.read(LocalStack(settings).airflow().home)
    if info is None or not any(
        map(psutil.pid_exists, filter(None, [info.pid, *info.parts.values()]))
    ):
        return None
    return _access(info)


def _access(info: AirflowInfo) -> dict[str, str]:
    return {"url": info.url, "username": info.username, "password": info.password}


@click.group("local-cluster")
def local_cluster() -> None:
    """A real Slurm cluster on this machine, without root."""


@local_cluster.command()
@click.option("--accounting", is_flag=True, help="With slurmdbd, so that sacct works.")
@click.option("--show-connection", is_flag=True, help="Print the Airflow connection as JSON.")
def up(accounting: bool, show_connection: bool) -> None:
    """Start munged, slurmctld, four slurmds and sshd; harmless where they run."""
    settings = Settings.from_env(os.environ)
    info = LocalCluster(cluster_root(settings), accounting=accounting).up()
    if show_connection:
        click.echo(json.dumps(info.airflow_connection()))
        return
    _describe(info)


@local_cluster.command()
def status() -> None:
    """Say whether the cluster runs and how to reach it."""
    settings = Settings.from_env(os.environ)
    info = LocalCluster(cluster_root(settings)).status()
    if info is None:
        click.echo("The local cluster does not run; start it with `nightshard local-cluster up`.")
        sys.exit(3)
    _describe(info)


@local_cluster.command()
def down() -> None:
    """Stop the cluster and every job on it; leaves no process."""
    settings = Settings.from_env(os.environ)
    LocalCluster(cluster_root(settings)).down()
    click.echo("The local cluster is down.")


def _describe(info: ClusterInfo) -> None:
    accounting = "with accounting (sacct works)" if info.accounting else "without accounting"
    click.echo(f"The local cluster runs: 4 nodes with 2 GPUs each, {accounting}.")
    click.echo(
        f"  log in:   ssh -p {info.ssh_port} -i {info.ssh_key} "
        f"-o UserKnownHostsFile={info.known_hosts} {info.ssh_user}@127.0.0.1"
    )
    click.echo("  Airflow:  nightshard local-cluster up --show-connection")


@click.command()
@click.option("--force", is_flag=True, help="Generate the answers again.")
@click.option("--torch-index", help="Package index with torch's CPU build, if pip needs one.")
def quickstart(force: bool, torch_index: str | None) -> None:
    """Set up everything on this machine and evaluate a small model on `Starter`."""
    from nightshard.cli.api import api_from_environment
    from nightshard.cli.launch import check_params, closing_line, trigger, watch
    from nightshard.local.model import quickstart_model
    from nightshard.local.worker_env import worker_environment

    settings = Settings.from_env(os.environ)
    console = Console()
    python = worker_environment(
        settings.state / "worker-env",
        settings.home / "shard_worker" / "constraints-cpu.txt",
        torch_index,
        say,
    )
    model = quickstart_model(
        settings.state / "models",
        python,
        settings.home / "include" / "quickstart" / "convert_gguf.py",
        say,
    )
    say("starting the local Slurm cluster")
    _, airflow = LocalStack(settings).up(say)
    say(f"evaluating {model.name} on Starter, {QUICKSTART_SHARDS} shards")
    values = {
        "model": str(model),
        "tasks": ["Starter"],
        "num_shards": QUICKSTART_SHARDS,
        "cluster": "local",
        "max_job_hours": 1,
        "force": force,
    }
    api = api_from_environment(_access(airflow))
    run_id = trigger(api, json.loads(check_params(values, settings).model_dump_json()), console)
    console.print(f"Follow it at {api.page(run_id)}", highlight=False, soft_wrap=True)
    summary = watch(api, run_id, console)
    console.print(
        f"Airflow runs at [bold]{airflow.url}[/]: log in as [bold]{airflow.username}[/] with the "
        f"password [bold]{airflow.password}[/]\nStop everything with [bold]make down[/]; answers "
        "and scores are kept.",
        highlight=False,
        soft_wrap=True,
    )
    if summary is None:
        sys.exit(1)
    click.echo(closing_line(summary))


@click.command("down")
def stop_everything() -> None:
    """Stop the local Airflow and the local cluster."""
    settings = Settings.from_env(os.environ)
    LocalStack(settings).down()
    click.echo("Airflow and the local cluster are down; answers and scores are kept.")


@click.command("worker-env")
@click.option("--torch-index", help="Package index with torch's CPU build, if pip needs one.")
def worker_env(torch_index: str | None) -> None:
    """Make the worker's own environment with vLLM's CPU build."""
    from nightshard.local.worker_env import worker_environment

    settings = Settings.from_env(os.environ)
    constraints = settings.home / "shard_worker" / "constraints-cpu.txt"
    click.echo(worker_environment(settings.state / "worker-env", constraints, torch_index, say))
