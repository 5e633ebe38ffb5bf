"""The worker in one archive, installed where there is no network."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from nightshard.cli import cli
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """The worker's own lock without its engine, which has several GB."""
    wanted = {"pyarrow", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"}
    wanted |= {"attrs", "typing-extensions"}
    whole = (PROJECT_ROOT / "shard_worker" / "requirements.lock").read_text()
    entries = whole.replace("\\\n", "\\").splitlines()
    kept = [entry for entry in entries if entry.partition("==")[0] in wanted]
    file = tmp_path / "small.lock"
    file.write_text("\n".join(kept).replace("\\", "\\\n") + "\n")
    return file


def without_network() -> list[str]:
    words = ["unshare", "-rn"]
    if shutil.which("unshare") and not subprocess.run([*words, "true"], check=False).returncode:
        return words
    return []  # then --no-index alone keeps pip from it


def test_an_archive_installs_without_a_network_and_checks_the_node(
    tmp_path: Path, lock: Path
) -> None:
    archive = tmp_path / "worker.tar"
    words = ["worker-bundle", "--output", str(archive), "--python", VERSION]
    code = "from nightshard.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--requirements", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"tar xf {archive.name}" in done.stdout
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    target = tmp_path / "env"
    installed = subprocess.run(
        [*without_network(), "sh", tmp_path / "shard-worker" / "install.sh", target, "echo"],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert "ok   import     echo can be imported" in installed.stdout
    damaged = next((tmp_path / "shard-worker" / "wheels").glob("attrs*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = subprocess.run(
        ["sh", tmp_path / "shard-worker" / "install.sh", tmp_path / "other", "echo"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode != 0
    assert damaged.name in again.stdout + again.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--requirements", "/no/such.lock"], "The lock /no/such.lock does not exist"),
        (["--glibc", "new"], "'new' is no version of glibc; give one such as 2.34"),
        (["--output", "/no/such/folder/x.tar"], "The folder /no/such/folder does not exist"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(cli, ["worker-bundle", *words])
    assert isinstance(done.exception, UserError)
    assert sentence in str(done.exception)
