"""The batch script of one array, rendered from a profile's template."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import jinja2

from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.submission import Shard, Submission
from nightshard.core.errors import UserError

SIGNAL_BEFORE_END_S = 60
"""Slurm warns the script so long before the time limit (up to a minute early, sbatch(1))."""

_EXCLUDE = "--exclude="
_DIRECTIVE = re.compile(r"--[a-z-]+(=[^\s\"'\\#]+)?")


def render_script(
    profile: ClusterProfile,
    submission: Submission,
    *,
    world_size: int,
    max_job_minutes: int,
    worker_zip: str,
    templates: Path,
    exclude: Sequence[str] = (),
) -> str:
    """Render the batch script; nothing in it comes from what a user of a run typed.

    Args:
        profile: the cluster.
        submission: which array of the run.
        world_size: number of shards of the run.
        max_job_minutes: time limit of one element.
        worker_zip: remote path of the staged worker.
        templates: folder of the templates.
        exclude: nodes that must not be used, besides those that the profile leaves out.

    Raises:
        UserError: the template is missing or broken, or a value cannot stand in an ``#SBATCH``
            line, which Slurm splits at spaces and in which it reads quotes and ``#``.
    """
    layout = submission.layout
    options = list(
        directives(profile, submission, max_job_minutes=max_job_minutes, exclude=exclude)
    )
    for option in options:
        if not _DIRECTIVE.fullmatch(option):
            raise UserError(
                f"The sbatch option {option!r} cannot be written; use no spaces, quotes or #."
            )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (a shell script; values pass the filter ``quote``)
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    try:
        return environment.get_template(profile.template).render(
            options=options,
            setup=profile.worker.setup,
            env=profile.worker.env,
            python=profile.worker.python,
            worker_zip=worker_zip,
            run=layout.run,
            shards=layout.shards,
            world_size=world_size,
            attempt=submission.attempt,
            first_rank=submission.first_rank,
            last_rank=submission.ranks[-1],
            per_job=submission.per_job,
            nodes=profile.slurm.nodes_per_shard,
        )
    except jinja2.TemplateNotFound:
        raise UserError(
            f"Cluster {profile.name!r} names the template {profile.template}, which is not in "
            f"{templates}; correct template in the profile."
        ) from None
    except jinja2.TemplateError as error:
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise UserError(f"The template {profile.template}{line}: {error}.") from None


def shard_script(
    profile: ClusterProfile,
    shard: Shard,
    submission: Submission,
    templates: Path,
    exclude: Sequence[str] = (),
) -> str:
    """Render the batch script of an array that runs a shard, see :func:`render_script`."""
    return render_script(
        profile,
        submission,
        world_size=shard.world_size,
        max_job_minutes=shard.max_job_minutes,
        worker_zip=shard.worker,
        templates=templates,
        exclude=exclude,
    )


def directives(
    profile: ClusterProfile,
    submission: Submission,
    *,
    max_job_minutes: int,
    exclude: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the ``sbatch`` options of an array.

    ``--no-requeue``: the control plane alone decides what runs again, unless the profile says that
    the site does. ``--open-mode=append``: a requeued job does not erase its log.
    """
    slurm, layout = profile.slurm, submission.layout
    log_pattern = layout.log_pattern(submission.attempt, submission.first_rank, submission.per_job)
    yield f"--job-name={submission.job_name}"
    yield f"--array={submission.indices}"
    yield f"--chdir={layout.run}"
    yield f"--output={log_pattern}"
    yield "--open-mode=append"
    yield f"--time={max_job_minutes}"
    yield f"--nodes={slurm.nodes_per_shard}"
    yield f"--ntasks={slurm.nodes_per_shard}"
    if slurm.nodes_per_shard > 1:
        yield "--ntasks-per-node=1"
    yield "--requeue" if slurm.requeue else "--no-requeue"
    yield f"--signal=B:USR1@{SIGNAL_BEFORE_END_S}"
    chosen = {
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "gres": slurm.gres,
        "cpus-per-task": slurm.cpus_per_task,
        "mem": slurm.mem,
        "constraint": slurm.constraint,
    }
    for name, value in chosen.items():
        if value is not None:
            yield f"--{name}={value}"
    left_out = [*exclude]
    for directive in slurm.extra_directives:
        if directive.startswith(_EXCLUDE):  # of two such options sbatch obeys the last alone
            left_out.append(directive.removeprefix(_EXCLUDE))
        else:
            yield directive
    if left_out:
        yield _EXCLUDE + ",".join(left_out)
