"""Which cluster a run goes to where nobody says it."""

from collections.abc import Mapping
from pathlib import Path

from nightshard.clusters.profile import ClusterProfile, load_named, profile_names
from nightshard.core.errors import UserError

AUTO = "auto"
"""In place of a cluster's name: the one on which a job would start first."""


EXAMPLE = "example_"
"""Begins every value of a profile that its user has to fill in."""


def unfilled(profile: ClusterProfile) -> list[str]:
    """Return the keys of a profile whose values are still examples."""
    values = {
        "workdir": profile.workdir,
        "models.dir": profile.models.dir,
        "worker.python": profile.worker.python,
        "slurm.account": profile.slurm.account,
        "slurm.partition": profile.slurm.partition,
    }
    return [name for name, value in values.items() if value and EXAMPLE in value]


def check_filled_in(profile: ClusterProfile) -> None:
    """Refuse a profile that nobody has filled in.

    Raises:
        UserError: names what is still an example.
    """
    if left := unfilled(profile):
        raise UserError(
            f"In the profile of {profile.name!r} {', '.join(left)} still holds an example; fill it "
            f"in, in include/clusters/{profile.name}.yaml or by the variable that it names."
        )


def default_profile(directory: Path, wished: str = "") -> str:
    """Return the profile of a run that names none; empty where there is no profile.

    Args:
        directory: of the profiles.
        wished: goes first where there is such a profile.
    """
    known = profile_names(directory)
    return next((name for name in (wished, "local", *known) if name in known), "")


def profile_of_host(directory: Path, host: str, environ: Mapping[str, str]) -> str | None:
    """Return the profile whose ``site.hosts`` match a host's whole name.

    A profile that cannot be read is passed over. None where no profile or several match: then a
    person has to say which is meant.
    """
    matching = []
    for name in profile_names(directory):
        try:
            profile = load_named(directory, name, environ)
        except UserError:
            continue
        if profile.site.has_host(host):
            matching.append(name)
    return matching[0] if len(matching) == 1 else None
