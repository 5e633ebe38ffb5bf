"""Everything on one machine: the local cluster, the local Airflow, the first run."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.local.airflow import LocalAirflow
from nightshard.local.cluster import ClusterInfo, LocalCluster

CONNECTION_ID = "nightshard_local"
QUICKSTART_SHARDS = 2


def _say(sentence: str) -> None:
    Console(stderr=True).print(f"[bold cyan]»[/] {sentence}", highlight=False, soft_wrap=True)


def _cluster_root(settings: Settings) -> Path:
    return settings.state / "local-cluster"


def task_environment(settings: Settings, cluster: ClusterInfo) -> dict[str, str]:
    """Return the variables that the local Airflow's tasks need: the SSH connection and settings."""
    return {
        f"AIRFLOW_CONN_{CONNECTION_ID.upper()}": json.dumps(cluster.airflow_connection()),
        "NIGHTSHARD_HOME": str(settings.home),
        "NIGHTSHARD_STATE": str(settings.state),
        "NIGHTSHARD_STORE": settings.store,
        "NIGHTSHARD_DB_URL": settings.database_url,
        "NIGHTSHARD_CLUSTERS": str(settings.clusters),
    }


def local_airflow(settings: Settings, cluster: ClusterInfo | None = None) -> LocalAirflow:
    """Return the handle of this machine's own Airflow; only ``up`` needs the cluster."""
    environment = task_environment(settings, cluster) if cluster else {}
    return LocalAirflow(settings.state / "airflow", settings.home, environment)


def local_api_access(settings: Settings) -> dict[str, str] | None:
    """Return address and login of this machine's own Airflow, None where it does not run."""
    info = local_airflow(settings).status()
    if info is None:
        return None
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
    info = LocalCluster(_cluster_root(settings), accounting=accounting).up()
    if show_connection:
        click.echo(json.dumps(info.airflow_connection()))
        return
    _describe(info)


@local_cluster.command()
def status() -> None:
    """Say whether the cluster runs and how to reach it."""
    settings = Settings.from_env(os.environ)
    info = LocalCluster(_cluster_root(settings)).status()
    if info is None:
        click.echo("The local cluster does not run; start it with `nightshard local-cluster up`.")
        sys.exit(3)
    _describe(info)


@local_cluster.command()
def down() -> None:
    """Stop the cluster and every job on it; leaves no process."""
    settings = Settings.from_env(os.environ)
    LocalCluster(_cluster_root(settings)).down()
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
    from nightshard.cli.launch import check_params, trigger, watch
    from nightshard.local.model import quickstart_model
    from nightshard.local.worker_env import worker_environment

    settings = Settings.from_env(os.environ)
    console = Console()
    _say("starting the local Slurm cluster")
    cluster = LocalCluster(_cluster_root(settings)).up()
    python = worker_environment(
        settings.state / "worker-env",
        settings.home / "shard_worker" / "constraints-cpu.txt",
        torch_index,
        _say,
    )
    model = quickstart_model(
        settings.state / "models",
        python,
        settings.home / "include" / "quickstart" / "convert_gguf.py",
        _say,
    )
    airflow = local_airflow(settings, cluster).up(_say)
    _say(f"evaluating {model.name} on Starter, {QUICKSTART_SHARDS} shards")
    values = {
        "model": str(model),
        "tasks": ["Starter"],
        "num_shards": QUICKSTART_SHARDS,
        "cluster": "local",
        "max_job_hours": 1,
        "force": force,
    }
    api = api_from_environment(asdict(airflow))
    run_id = trigger(api, check_params(values, settings), console)
    console.print(
        f"Airflow: [link]{api.page(run_id)}[/] — log in as [bold]{airflow.username}[/] with the "
        f"password [bold]{airflow.password}[/]; stop everything with [bold]make down[/]",
        highlight=False,
        soft_wrap=True,
    )
    if watch(api, run_id, console) is None:
        sys.exit(1)


@click.command("down")
def stop_everything() -> None:
    """Stop the local Airflow and the local cluster."""
    settings = Settings.from_env(os.environ)
    local_airflow(settings).down()
    LocalCluster(_cluster_root(settings)).down()
    click.echo("Airflow and the local cluster are down; answers and scores are kept.")


@click.command("worker-env")
@click.option("--torch-index", help="Package index with torch's CPU build, if pip needs one.")
def worker_env(torch_index: str | None) -> None:
    """Make the worker's own environment with vLLM's CPU build."""
    from nightshard.local.worker_env import worker_environment

    settings = Settings.from_env(os.environ)
    constraints = settings.home / "shard_worker" / "constraints-cpu.txt"
    if not constraints.exists():
        raise UserError(f"{constraints} is missing; run this in a checkout of Nightshard.")
    click.echo(worker_environment(settings.state / "worker-env", constraints, torch_index, _say))
