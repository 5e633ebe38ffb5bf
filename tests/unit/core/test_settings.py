"""Where things lie, by default and by environment."""

from pathlib import Path

import pytest

from nightshard.core.settings import PROJECT_ROOT, Settings

pytestmark = pytest.mark.unit


def test_everything_lies_in_the_project_by_default() -> None:
    settings = Settings.from_env({})
    assert settings.home == PROJECT_ROOT
    assert settings.state == PROJECT_ROOT / ".nightshard"
    assert settings.store == str(settings.state / "store")
    assert settings.database_url == f"sqlite:///{settings.state / 'nightshard.db'}"
    assert settings.clusters == PROJECT_ROOT / "include" / "clusters"
    assert settings.worker_source == PROJECT_ROOT / "shard_worker" / "src"


def test_the_state_moves_store_and_database_with_it(tmp_path: Path) -> None:
    settings = Settings.from_env({"NIGHTSHARD_STATE": str(tmp_path)})
    assert settings.store == str(tmp_path / "store")
    assert settings.database_url == f"sqlite:///{tmp_path / 'nightshard.db'}"


def test_each_place_can_be_set_alone(tmp_path: Path) -> None:
    settings = Settings.from_env(
        {
            "NIGHTSHARD_HOME": str(tmp_path),
            "NIGHTSHARD_STORE": "s3://bucket/store",
            "NIGHTSHARD_DB_URL": "postgresql+psycopg://db/nightshard",
            "NIGHTSHARD_CLUSTERS": str(tmp_path / "mine"),
        }
    )
    assert settings.templates == tmp_path / "include" / "sbatch"
    assert settings.store == "s3://bucket/store"
    assert settings.database_url == "postgresql+psycopg://db/nightshard"
    assert settings.clusters == tmp_path / "mine"


def test_a_relative_place_is_the_same_one_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = {
        "NIGHTSHARD_STATE": "state",
        "NIGHTSHARD_STORE": "store",
        "NIGHTSHARD_CLUSTERS": "clusters",
    }
    settings = Settings.from_env(relative)
    assert settings.state == tmp_path / "state"
    assert settings.store == str(tmp_path / "store")
    assert settings.clusters == tmp_path / "clusters"
