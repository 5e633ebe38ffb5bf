"""Making the worker's environment: each way in which it fails is one sentence."""

import subprocess
from pathlib import Path

import pytest

from nightshard.core.errors import UserError
from nightshard.local import worker_env
from nightshard.local.worker_env import worker_environment

pytestmark = pytest.mark.unit


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    file = tmp_path / "constraints.txt"
    file.write_text("torch==1\n")
    return file


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is run, in order, with nothing done."""
    made: list[str] = []

    def create(folder: Path, *, with_pip: bool) -> None:
        made.append("create")
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "pip").touch()

    monkeypatch.setattr(worker_env.venv, "create", create)
    monkeypatch.setattr(worker_env, "_pip", lambda _, arguments: made.append(arguments[0]))
    return made


def test_it_is_made_once_and_again_when_the_versions_change(
    tmp_path: Path, constraints: Path, calls: list[str]
) -> None:
    for _ in range(2):
        worker_environment(tmp_path / "env", constraints, None, lambda _: None)
    assert calls == ["create", "install", "uninstall"]
    constraints.write_text("torch==2\n")
    worker_environment(tmp_path / "env", constraints, None, lambda _: None)
    assert calls[3:] == ["install", "uninstall"]


def test_one_that_was_interrupted_before_it_had_pip_is_made_again(
    tmp_path: Path, constraints: Path, calls: list[str]
) -> None:
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    worker_environment(tmp_path / "env", constraints, None, lambda _: None)
    assert calls[0] == "create"


def test_missing_constraints_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt is missing; run this in a checkout"):
        worker_environment(tmp_path / "env", tmp_path / "none.txt", None, lambda _: None)


def test_a_python_without_ensurepip_names_the_package(
    tmp_path: Path, constraints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(worker_env.venv, "create", create)
    with pytest.raises(UserError, match="apt-get install python3-venv"):
        worker_environment(tmp_path / "env", constraints, None, lambda _: None)
