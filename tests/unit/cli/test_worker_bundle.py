"""What ``nightshard worker-bundle`` makes of its options, and says of wrong ones."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nightshard.cli import cli
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local import worker_bundle
from nightshard.local.worker_bundle import Bundle, Recipe

pytestmark = pytest.mark.unit

SCRIPTS = PROJECT_ROOT / "include" / "worker-bundle"
PROFILE = """\
title: Example
ssh_conn_id: example
workdir: /work/p/nightshard
models: {dir: /work/p/models}
worker: {python: /work/p/image/bin/python, install: apptainer}
"""


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["worker-bundle", *words])


def built(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Recipe, str]:
    seen: list[Recipe] = []

    def build(recipe: Recipe, *_: Any) -> Bundle:
        seen.append(recipe)
        return Bundle(5 << 30, 200, "2.31")

    monkeypatch.setattr(worker_bundle, "build_bundle", build)
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    return seen[0], done.stdout


def test_the_workers_own_lock_is_taken_and_the_two_commands_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, said = built(monkeypatch)
    assert recipe.requirements == PROJECT_ROOT / "shard_worker" / "requirements.lock"
    assert recipe.hashed
    assert not recipe.apptainer
    assert said == (
        "shard-worker.tar is ready: 5,120 MiB, 200 wheels, for Python 3.11 on x86_64 with glibc "
        "2.31 or later.\nCopy it to the cluster, and there:\n  tar xf shard-worker.tar\n"
        "  sh shard-worker/install.sh /work/example_project/worker-env\n"
    )


def test_the_cpu_build_is_the_one_of_the_local_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, _ = built(monkeypatch, "--cpu", "--torch-index", "https://example.org/cpu")
    assert recipe.requirements == PROJECT_ROOT / "shard_worker" / "constraints-cpu.txt"
    assert recipe.index == "https://example.org/cpu"
    assert not recipe.hashed


def test_a_profile_says_how_and_where_the_worker_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "example.yaml").write_text(PROFILE)
    monkeypatch.setenv("NIGHTSHARD_CLUSTERS", str(tmp_path))
    recipe, said = built(monkeypatch, "--cluster", "example")
    assert recipe.apptainer
    assert "  sh shard-worker/image.sh python.sif /work/p/image\n" in said
    assert "apptainer pull python.sif docker://python:3.11-bookworm" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--requirements", "/no/such.lock"], "The lock /no/such.lock does not exist"),
        (["--requirements", "/tmp"], "The lock /tmp cannot be read"),
        (["--glibc", "new"], "'new' is no version of glibc; give one such as 2.34"),
        (["--python", "3.9"], "does not run on Python '3.9'; choose 3.11, 3.12, 3.13"),
        (["--machine", "riscv64"], "no wheels for the machine 'riscv64'; choose x86_64 or aarch64"),
        (["--output", "/no/such/folder/x.tar"], "The folder /no/such/folder does not exist"),
        (["--output", "x.tar.gz"], "wheels are compressed already; end it with .tar"),
        (["--cluster", "nowhere"], "There is no cluster 'nowhere'"),
        (["--cpu", "--requirements", "x.lock"], "--cpu and --requirements both name a lock"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(words: list[str], sentence: str) -> None:
    done = invoke(*words)
    assert isinstance(done.exception, UserError)
    assert sentence in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = invoke("--output", str(tmp_path / "x.tar"))
    assert isinstance(done.exception, UserError)
    assert "has 3.0 GiB free and building takes about 10; free some" in str(done.exception)


@pytest.mark.parametrize("script", ["install.sh", "image.sh"])
def test_shellcheck_finds_nothing_in_the_installers(script: str) -> None:
    words = [Path(sys.prefix) / "bin" / "shellcheck", "--shell=sh", SCRIPTS / script]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_a_definition_copies_every_file_that_the_installer_verifies() -> None:
    copied = {
        line.split()[0]
        for line in (SCRIPTS / "worker.def").read_text().splitlines()
        if line.endswith(" /opt/shard-worker/")
    }
    files = {*worker_bundle.VENV_FILES, *worker_bundle.IMAGE_FILES}
    assert copied == {*files, "SHA256SUMS", "bundle.env", "requirements.lock", "wheels"}
