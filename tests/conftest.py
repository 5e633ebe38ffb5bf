"""What several suites share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from nightshard.core.settings import PROJECT_ROOT

# How long an example takes says nothing on a machine that does other things beside.
settings.register_profile("nightshard", deadline=None)
settings.load_profile("nightshard")

pytest_plugins = [
    "integration.fixtures.clusters",
    "support.fixtures",
    "support.faults.plugin",
    "support.browser",
    "support.postgres",
]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real benchmark questions that lie beside the checkout, never inside it."""
    folder = Path(os.environ.get("NIGHTSHARD_SHARED_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real questions at {folder}; NIGHTSHARD_SHARED_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def worker_env() -> Path:
    """The worker's environment with vLLM's CPU build."""
    default = PROJECT_ROOT / ".nightshard" / "worker-env"
    folder = Path(os.environ.get("NIGHTSHARD_WORKER_ENV", default))
    if not (folder / "bin" / "python").exists():
        pytest.fail(f"no worker environment at {folder}; `make worker-env` makes it")
    return folder
