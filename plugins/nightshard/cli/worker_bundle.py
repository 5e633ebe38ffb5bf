"""``nightshard worker-bundle``: the worker for nodes without internet."""

import os
from pathlib import Path, PurePosixPath

import click

from nightshard.cli.local import say
from nightshard.core.settings import Settings

MIB = 1 << 20
GIB = 1 << 30
ROOM_CUDA = 10 * GIB
ROOM_CPU = 3 * GIB
"""The wheels of the worker's own locks, in a folder and in the archive."""

EXAMPLE = "/work/example_project/worker-env"


@click.command("worker-bundle")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("shard-worker.tar"),
    show_default=True,
    help="The archive.",
)
@click.option("--python", default="3.11", show_default=True, help="Python of the nodes.")
@click.option(
    "--glibc",
    default="2.31",
    show_default=True,
    help="C library of the nodes, or an older one; `ldd --version` says it there.",
)
@click.option(
    "--machine",
    default="x86_64",
    show_default=True,
    help="Processor of the nodes: x86_64 or aarch64, as `uname -m` says there.",
)
@click.option("--cpu", is_flag=True, help="vLLM's CPU build, for nodes without a GPU.")
@click.option("--torch-index", help="Package index with torch's CPU build, if pip needs one.")
@click.option(
    "--apptainer",
    is_flag=True,
    help="With what builds an Apptainer image from it; a profile can ask for it, see --cluster.",
)
@click.option("--cluster", help="Take Apptainer or not, and the folder, from this profile.")
@click.option(
    "--requirements",
    type=click.Path(path_type=Path),
    help="A lock with hashes in place of the worker's own (vLLM for CUDA, several GB).",
)
def worker_bundle(
    *,
    output: Path,
    python: str,
    glibc: str,
    machine: str,
    cpu: bool,
    torch_index: str | None,
    apptainer: bool,
    cluster: str | None,
    requirements: Path | None,
) -> None:
    """Pack the worker, vLLM and all else into one archive that installs offline."""
    from rich.console import Console
    from rich.progress import Progress

    from nightshard.core.errors import UserError
    from nightshard.local.bundle_lock import Target
    from nightshard.local.worker_bundle import Recipe, build_bundle

    settings = Settings.from_env(os.environ)
    if cpu and requirements:
        raise UserError("--cpu and --requirements both name a lock; leave one of them out.")
    folder = EXAMPLE
    if cluster is not None:
        wanted, folder = _from_profile(settings, cluster)
        apptainer = apptainer or wanted
    project = settings.worker_source.parent
    lock = project / ("constraints-cpu.txt" if cpu else "requirements.lock")
    recipe = Recipe(
        source=project,
        scripts=settings.home / "include" / "worker-bundle",
        requirements=requirements or lock,
        hashed=not cpu,
        target=Target(python, glibc, machine),
        apptainer=apptainer,
        index=torch_index,
        room=0 if requirements else ROOM_CPU if cpu else ROOM_CUDA,
    )
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("fetching", total=None)

    def progress(seen: int, total: int, name: str) -> None:
        bar.start()
        bar.update(task, completed=seen - 1, total=total, description=name)

    def still() -> None:
        if bar.live.is_started:  # stopping prints a line otherwise
            bar.stop()

    def tell(sentence: str) -> None:
        still()  # two writers would draw over each other
        say(sentence)

    try:
        bundle = build_bundle(recipe, output.absolute(), tell, progress)
    finally:
        still()
    click.echo(
        f"{output} is ready: {bundle.size / MIB:,.0f} MiB, {bundle.wheels} wheels, for Python "
        f"{python} on {machine} with glibc {bundle.glibc} or later.\n"
        f"Copy it to the cluster, and there:\n"
        f"  tar xf {output.name}\n"
        f"  sh shard-worker/install.sh {folder}"
    )
    if apptainer:
        click.echo(
            "or, as an Apptainer image on a Python image that you fetched where there is internet "
            f"(apptainer pull python.sif docker://python:{python}-bookworm):\n"
            f"  sh shard-worker/image.sh python.sif {folder}"
        )


def _from_profile(settings: Settings, name: str) -> tuple[bool, str]:
    """Return whether the profile wants an image, and the folder of the worker's environment."""
    from nightshard.clusters.profile import load_named

    worker = load_named(settings.clusters, name, settings.variables(os.environ)).worker
    python = PurePosixPath(worker.python)
    in_place = python.is_absolute() and python.parent.name == "bin"
    return worker.install == "apptainer", str(python.parent.parent) if in_place else EXAMPLE
