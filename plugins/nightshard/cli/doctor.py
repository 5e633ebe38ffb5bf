"""``nightshard doctor``: what works on this machine, and a remedy for what does not."""

import asyncio
import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from nightshard.cli.reach import ssh_option, transport_to
from nightshard.core.errors import NightshardError, UserError
from nightshard.core.settings import Settings

Check = Callable[[Settings], str]
"""Returns a sentence on what works, or raises a UserError with what does not and a remedy."""


def _sandbox(_: Settings) -> str:
    from nightshard.benchmarks.judges.sandbox.bubblewrap import check_sandbox

    check_sandbox()
    return "programs that models wrote can be judged in a sandbox"


def _database(settings: Settings) -> str:
    from nightshard.results.database import require_head

    return f"its tables are those of this version ({require_head(settings.database_url).head})"


def _store(settings: Settings) -> str:
    if "://" in settings.store:
        return f"{settings.store}, which is not tried"
    folder = Path(settings.store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return f"{folder} can be written"
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); choose another one by "
            "NIGHTSHARD_STORE."
        ) from None


def _profiles(settings: Settings) -> str:
    from nightshard.clusters.profile import load_named, profile_names

    names = profile_names(settings.clusters)
    if not names:
        raise UserError(f"{settings.clusters} holds no cluster; put a profile there.")
    for name in names:
        load_named(settings.clusters, name, settings.variables(os.environ))
    return f"{', '.join(names)} can be used"


def _benchmarks(settings: Settings) -> str:
    from nightshard.benchmarks.own import read_folder

    own = read_folder(settings.benchmarks)
    if own.broken:
        raise UserError(next(iter(own.broken.values())))
    return f"{len(own.found)} of your own in {settings.benchmarks}"


def _harness(_: Settings) -> str:
    from nightshard.benchmarks.harness import HOW_TO_GET

    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(f"it is not here, so lm-eval: tasks cannot be asked; {HOW_TO_GET}.")
    return "its tasks can be asked"


CHECKS: dict[str, Check] = {
    "sandbox": _sandbox,
    "results database": _database,
    "answer store": _store,
    "cluster profiles": _profiles,
    "own benchmarks": _benchmarks,
    "lm-evaluation-harness": _harness,
}


@click.command()
@click.option("--cluster", help="Check this cluster instead, by a profile's name.")
@ssh_option
@click.option("--model-name", "model", help="Let the last check's job ask this model.")
@click.option("--wait", default=900.0, show_default=True, help="Seconds for that job.")
@click.option("--no-job", is_flag=True, help="Leave that job out.")
def doctor(
    cluster: str | None, ssh: str | None, model: str | None, wait: float, no_job: bool
) -> None:
    """Check this machine, or a cluster from the login to a job that answers a question.

    Exit code 1 where something does not work.
    """
    settings = Settings.from_env(os.environ)
    if cluster is not None:
        last = None if no_job else (model, wait)
        if not asyncio.run(_examine_cluster(settings, cluster, ssh, last)):
            sys.exit(1)
        return
    sick = 0
    for name, well, sentence in examine(settings):
        sick += not well
        _tell(name, well, sentence)
    if sick:
        sys.exit(1)


async def _examine_cluster(
    settings: Settings, name: str, ssh: str | None, last: tuple[str | None, float] | None
) -> bool:
    from nightshard.cli.trial import one_question
    from nightshard.clusters.examination import LOGIN_CHECKS, Patient
    from nightshard.clusters.examination import examine as examine_cluster
    from nightshard.clusters.profile import load_named

    profile = load_named(settings.clusters, name, settings.variables(os.environ))
    checks = LOGIN_CHECKS
    if last is not None:
        job = functools.partial(one_question, model=last[0], wait_s=last[1])
        checks += (("job", ("packages", "acceptance", "work folder"), job),)
    well = True
    async with transport_to(profile, ssh, settings) as transport:
        patient = Patient(profile, transport, settings.worker_source, settings.templates)
        async for what, fine, sentence in examine_cluster(patient, checks):
            well &= bool(fine)
            _tell(what, fine, sentence)
    return well


def _tell(name: str, well: bool | None, sentence: str) -> None:
    mark = {True: "ok  ", False: "FAIL", None: "-   "}[well]
    click.secho(f"{mark} {name}: {sentence}", fg=None if well else "red")


def examine(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    """Yield for each check its name, whether it works, and a sentence."""
    for name, check in CHECKS.items():
        try:
            yield name, True, check(settings)
        except NightshardError as error:
            yield name, False, str(error)
