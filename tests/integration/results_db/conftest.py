"""Empty databases, on SQLite and on the PostgreSQL server of ``support.postgres``."""

from pathlib import Path

import psycopg
import pytest


@pytest.fixture
def postgres_url(postgres_server: Path, request: pytest.FixtureRequest) -> str:
    """URL of an empty database of this test's own."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(
        host=str(postgres_server), user="nightshard", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        # A server away from UTC, as most are, so that a zone lost on the way would show.
        connection.execute(f"ALTER DATABASE \"{name}\" SET timezone TO 'Asia/Kathmandu'")
    return f"postgresql://nightshard@/{name}?host={postgres_server}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/scores.db"
    return str(request.getfixturevalue("postgres_url"))
