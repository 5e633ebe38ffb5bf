"""The worker in one archive, installed where there is no network."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
Sh = Callable[..., "subprocess.CompletedProcess[str]"]


def run(words: Sequence[str | Path], **options: str | Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": "/no/such/folder"}
    environment |= {name: str(value) for name, value in options.items() if name.isupper()}
    return subprocess.run(
        words,
        env=environment,
        cwd=options["cwd"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def bundle(folder: Path, lock: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    code = "from nightshard.cli import main; main()"
    words = ["worker-bundle", "--output", "worker.tar", "--python", VERSION, *more]
    path = str(PROJECT_ROOT / "plugins")
    command = [sys.executable, "-c", code, *words, "--requirements", lock]
    return run(command, cwd=folder, PYTHONPATH=path)


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker's own lock without its engine, which has several GB."""
    wanted = {"pyarrow", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"}
    wanted |= {"attrs", "typing-extensions"}
    whole = (PROJECT_ROOT / "shard_worker" / "requirements.lock").read_text()
    entries = whole.replace("\\\n", "\\").splitlines()
    kept = [entry for entry in entries if entry.partition("==")[0] in wanted]
    file = tmp_path_factory.mktemp("lock") / "small.lock"
    file.write_text("\n".join(kept).replace("\\", "\\\n") + "\n")
    return file


@pytest.fixture(scope="module")
def archive(lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    done = bundle(folder, lock, "--apptainer")
    assert done.returncode == 0, done.stderr
    assert re.search(r"worker\.tar is ready: \d+ MiB, 8 wheels, for Python", done.stdout)
    assert "  tar xf worker.tar\n  sh shard-worker/install.sh /work/" in done.stdout
    assert "  sh shard-worker/image.sh python.sif /work/" in done.stdout
    return folder / "worker.tar"


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "shard-worker"


def without_network() -> list[str]:
    words = ["unshare", "-rn"]
    if shutil.which("unshare") and not subprocess.run([*words, "true"], check=False).returncode:
        return words
    return []  # then --no-index alone keeps pip from it


def test_an_archive_installs_without_a_network_and_checks_the_node(
    unpacked: Path, tmp_path: Path
) -> None:
    words = [*without_network(), "sh", "shard-worker/install.sh", "my env"]
    for _ in range(2):  # the second time over the first
        installed = run(words, cwd=tmp_path)
        assert installed.returncode == 0, installed.stdout + installed.stderr
        assert "ok   import     echo can be imported" in installed.stdout
        assert installed.stdout.endswith(f"worker.python is {tmp_path}/my env/bin/python\n")
    version = run([tmp_path / "my env" / "bin" / "shard-worker", "--version"], cwd=tmp_path)
    assert version.stdout == "shard-worker 0.1.0\n"


def test_a_damaged_archive_is_said_before_anything_is_installed(
    unpacked: Path, tmp_path: Path
) -> None:
    damaged = next((unpacked / "wheels").glob("attrs*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = run(["sh", unpacked / "install.sh", "env"], cwd=tmp_path)
    assert done.returncode == 2
    assert damaged.name in done.stdout + done.stderr
    assert "The archive is damaged" in done.stderr
    assert list((tmp_path / "env").iterdir()) == []


def change(unpacked: Path, name: str, value: str) -> None:
    file = unpacked / "bundle.env"
    file.write_text(re.sub(rf"(?m)^BUNDLE_{name}=.*$", f"BUNDLE_{name}={value}", file.read_text()))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PYTHON", "3.7", f"is Python {VERSION} and this bundle is for 3.7; set PYTHON"),
        ("MACHINE", "riscv64", "and this bundle is for riscv64; build one with --machine"),
        ("GLIBC", "2.99", "and the wheels need 2.99; use newer nodes"),
        ("INSTALLED_KIB", "99999999999", "MiB free and the environment takes 97656249 MiB"),
    ],
)
def test_a_node_that_the_bundle_does_not_fit_is_said(
    unpacked: Path, tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    change(unpacked, name, value)
    done = run(["sh", unpacked / "install.sh", "env"], cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_of_something_else_is_left_alone(unpacked: Path, tmp_path: Path) -> None:
    other = tmp_path / "results"
    other.mkdir()
    (other / "scores.csv").write_text("precious")
    for target in (other, other / "scores.csv"):
        done = run(["sh", unpacked / "install.sh", target], cwd=tmp_path)
        assert done.returncode == 2
        assert f"{target} is there and is no Python environment; name another" in done.stderr
    assert (other / "scores.csv").read_text() == "precious"


def test_a_python_that_is_not_there_and_a_missing_folder_are_said(
    unpacked: Path, tmp_path: Path
) -> None:
    done = run(["sh", unpacked / "install.sh", "env"], cwd=tmp_path, PYTHON="python9.9")
    assert "There is no python9.9 here; load a module that has it" in done.stderr
    done = run(["sh", unpacked / "install.sh"], cwd=tmp_path)
    assert "Name the folder for the worker's environment" in done.stderr


# Apptainer needs to be installed by a site; this follows a definition as its manual describes it,
# with a tar file of /opt as the image, in a mount and network namespace of its own.
APPTAINER = """#!/bin/sh
set -eu
export PATH="{path}:$PATH"
case $1 in
build)
  image=$3
  section() { awk -v want="$1" '/^%/ { on = ($1 == want); next } on { print }' "$2"; }
  grep -qx "Bootstrap: localimage" "$4"
  test -f "$(sed -n 's/^From: //p' "$4")"
  section %files "$4" | awk 'NF { print "mkdir -p " $2 " && cp -fLr " $1 " " $2 }' >"$image.files"
  section %post "$4" >"$image.post"
  exec unshare -rnm sh -ec 'mount -t tmpfs none /opt; . "$1.files"; cd /; sh -e "$1.post"
    tar cf "$1" -C /opt .' build "$image"
  ;;
exec)
  [ "$2" = --nv ]
  image=$3
  shift 3
  exec unshare -rnm sh -ec 'mount -t tmpfs none /opt; tar xf "$0" -C /opt; exec "$@"' "$image" "$@"
  ;;
esac
"""


@pytest.fixture
def apptainer(tmp_path: Path) -> Path:
    if not without_network():
        pytest.skip("the kernel gives no namespaces to this user")
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "apptainer"
    program.write_text(APPTAINER.replace("{path}", str(folder)))
    program.chmod(stat.S_IRWXU)
    (folder / f"python{VERSION}").symlink_to(sys.executable)
    return folder


def test_an_image_is_built_from_the_same_wheels_and_its_python_runs_the_worker(
    unpacked: Path, tmp_path: Path, apptainer: Path
) -> None:
    path = f"{apptainer}:{os.environ['PATH']}"
    (tmp_path / "python.sif").touch()
    words = ["sh", unpacked / "image.sh", "python.sif", "image"]
    built = run(words, cwd=tmp_path, PATH=path, PYTHON="")
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stdout.count("ok   import     echo can be imported") == 2
    python = tmp_path / "image" / "bin" / "python"
    assert built.stdout.endswith(f"worker.python is {python}\n")
    said = run([python, "-m", "shard_worker", "--version"], cwd=tmp_path, PATH=path)
    assert said.stdout == "shard-worker 0.1.0\n", said.stderr


def test_what_an_image_lacks_is_said(unpacked: Path, tmp_path: Path, apptainer: Path) -> None:
    words = ["sh", unpacked / "image.sh", "python.sif", "image"]
    path = f"{apptainer}:{os.environ['PATH']}"
    done = run(words, cwd=tmp_path, PATH=path)
    assert done.returncode == 2
    assert f"apptainer pull python.sif docker://python:{VERSION}-bookworm" in done.stderr
    (apptainer / "apptainer").unlink()
    (tmp_path / "python.sif").touch()
    if shutil.which("apptainer") is None and shutil.which("singularity") is None:
        done = run(words, cwd=tmp_path, PATH=path)
        assert "There is neither apptainer nor singularity here" in done.stderr


def test_a_package_without_a_wheel_for_the_nodes_is_named(lock: Path, tmp_path: Path) -> None:
    done = bundle(tmp_path, lock, "--glibc", "2.12")
    assert done.returncode == 1
    assert re.search(
        rf"There is no wheel of [\w.=-]+ for Python {VERSION} on x86_64 with glibc 2\.12; name",
        " ".join(done.stderr.split()),
    )
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_is_not_what_the_lock_says_is_refused(lock: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.lock"
    forged.write_text("attrs==26.1.0 --hash=sha256:" + "0" * 64 + "\n")
    done = bundle(tmp_path, forged)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert list(tmp_path.iterdir()) == [forged]
