"""Session fixtures that start services."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, worker_env: Path) -> Iterator[Stack]:
    """A running Airflow and local cluster with a tiny model."""
    with running_stack(tmp_path_factory.mktemp("stack"), worker_env) as running:
        yield running
