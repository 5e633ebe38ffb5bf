"""`nightshard doctor` names what does not work here, with a remedy."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nightshard.benchmarks.judges.sandbox import bubblewrap
from nightshard.cli import cli
from nightshard.results.database import open_database

pytestmark = pytest.mark.unit

PROFILE = """
title: A cluster
ssh_conn_id: site
workdir: /work/ns
worker: {python: /env/bin/python}
models: {dir: /models}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which all is well."""
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "site.yaml").write_text(PROFILE)
    (tmp_path / "benchmarks").mkdir()
    url = f"sqlite:///{tmp_path}/results.db"
    for name, value in (
        ("CLUSTERS", tmp_path / "clusters"),
        ("BENCHMARKS", tmp_path / "benchmarks"),
        ("STORE", tmp_path / "store"),
        ("DB_URL", url),
    ):
        monkeypatch.setenv(f"NIGHTSHARD_{name}", str(value))
    open_database(url)
    return tmp_path


def doctor() -> Any:
    return CliRunner().invoke(cli, ["doctor"], catch_exceptions=False)


def test_all_is_well(home: Path) -> None:
    found = doctor()
    assert found.exit_code == 0, found.output
    assert found.output.count("ok  ") == 6
    assert "cluster profiles: site can be used" in found.output


def test_a_missing_sandbox_is_said_with_how_to_get_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "programs", list)
    found = doctor()
    assert found.exit_code == 1
    assert "FAIL sandbox: Code is judged in a sandbox only, and bwrap is missing; install the" in (
        found.output
    )


def test_every_trouble_is_told_and_none_hides_another(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHARD_DB_URL", f"sqlite:///{home}/empty.db")
    monkeypatch.setenv("NIGHTSHARD_STORE", str(home / "results.db" / "store"))
    (home / "clusters" / "site.yaml").write_text(PROFILE.replace("title", "titel"))
    (home / "benchmarks" / "Broken.jsonl").write_text("{")
    found = doctor()
    assert found.output.count("FAIL") == 4
    assert "run `nightshard db upgrade`" in found.output
    assert "cannot be written (Not a directory); choose another one by NIGHTSHARD_STORE" in (
        found.output
    )
    assert "there is no key titel; did you mean title?" in found.output
    assert "Broken.jsonl" in found.output
