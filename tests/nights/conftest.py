"""An Airflow on PostgreSQL: on SQLite backfills may be refused, and are not meant for it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from support.stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, worker_env: Path, postgres_server: Path
) -> Iterator[Stack]:
    """A running Airflow and local cluster, Airflow's own database on PostgreSQL."""
    server = {"host": str(postgres_server), "user": "nightshard", "dbname": "postgres"}
    with psycopg.connect(**server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE nights")
    url = f"postgresql+psycopg://nightshard@/nights?host={postgres_server}"
    with running_stack(tmp_path_factory.mktemp("nights"), worker_env, url) as running:
        yield running
