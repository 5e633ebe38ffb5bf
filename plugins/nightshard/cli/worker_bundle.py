"""``nightshard worker-bundle``: the worker for nodes without internet."""

import os
from pathlib import Path

import click

from nightshard.cli.local import say
from nightshard.core.settings import Settings

MIB = 1 << 20


@click.command("worker-bundle")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("shard-worker.tar"),
    show_default=True,
    help="The archive.",
)
@click.option("--python", "version", default="3.11", show_default=True, help="Python there.")
@click.option(
    "--glibc",
    default="2.34",
    show_default=True,
    help="C library of its nodes, as `ldd --version` says there.",
)
@click.option(
    "--machine",
    type=click.Choice(["x86_64", "aarch64"]),
    default="x86_64",
    show_default=True,
    help="Processor of its nodes.",
)
@click.option(
    "--requirements",
    type=click.Path(path_type=Path),
    help="A lock with hashes in place of the worker's own (vLLM for CUDA, several GB).",
)
def worker_bundle(
    output: Path, version: str, glibc: str, machine: str, requirements: Path | None
) -> None:
    """Pack the worker, vLLM and all else into one archive that installs offline."""
    from nightshard.local.worker_bundle import Target, build_bundle, wheel_tags

    project = Settings.from_env(os.environ).worker_source.parent
    lock = requirements or project / "requirements.lock"
    build_bundle(project, lock, Target(version, wheel_tags(glibc, machine)), output.absolute(), say)
    click.echo(
        f"{output} is ready, {output.stat().st_size / MIB:,.0f} MiB. On the cluster:\n"
        f"  tar xf {output.name}\n"
        "  sh shard-worker/install.sh /work/example_project/worker-env"
    )
