"""What each task of ``evaluate`` does, without Airflow's decorators.

Every function can be called twice: a retry or a clear in the UI finds what the first try left. A
module a kind of work, so that a task imports no more than it needs.
"""

import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from nightshard.clusters.layout import RunLayout
from nightshard.clusters.profile import ClusterProfile, load_named
from nightshard.core.run_plan import RunPlan
from nightshard.core.settings import Settings

if TYPE_CHECKING:
    from nightshard.results.store import RunStore

Json = dict[str, Any]


def current_settings() -> Settings:
    """Read the settings from this process's environment."""
    return Settings.from_env(os.environ)


def profile_named(name: str) -> ClusterProfile:
    """Load a cluster's profile.

    Raises:
        UserError: there is no such cluster, or its file cannot be used.
    """
    settings = current_settings()
    return load_named(settings.clusters, name, settings.variables(os.environ))


def profile_of(run: RunPlan) -> ClusterProfile:
    """Load the profile of a run's cluster."""
    return profile_named(run.params.cluster)


def layout_of(profile: ClusterProfile, run_key: str) -> RunLayout:
    """Return a run's remote paths."""
    return RunLayout(PurePosixPath(profile.workdir), run_key)


def store_of(run: RunPlan) -> "RunStore":
    """Return a run's folder in the artefact store."""
    # Not every step needs pyarrow, which comes with it.
    from nightshard.results.store import RunStore

    return RunStore(current_settings().store, run.run_key)
