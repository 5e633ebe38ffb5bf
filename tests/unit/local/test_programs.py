"""Where programs come from, and what is said where they cannot come."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.errors import UserError
from nightshard.local import debian

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "riscv64")])
def test_another_platform_gets_one_sentence(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(UserError, match=f"runs on Linux on x86_64 or aarch64, not on {system} on"):
        debian.find_programs(tmp_path, accounting=False)


def test_without_apt_the_missing_programs_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(UserError, match=r"missing here \(slurm, munge, ssh.*no apt-get"):
        debian.find_programs(tmp_path, accounting=False)


def test_a_failed_download_gets_apts_reason_and_the_line_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'W: noise' >&2; echo 'E: no network' >&2; exit 100\n")
    tool.chmod(0o755)
    (tool.parent / "dpkg").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.setattr(debian, "SYSTEM_PATH", "")
    with pytest.raises(UserError, match=r"\(no network\).*apt-get install .* slurm-wlm munge") as e:
        debian.find_programs(tmp_path / "debian", accounting=True)
    assert str(e.value).endswith("slurmdbd mariadb-server")


def test_outdated_lists_are_fetched_into_the_own_folder_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def apt(self: debian.PackageFolder, arguments: list[str], options: list[str]) -> str:
        asked.append([*arguments, *options])
        return "" if options else "404"

    monkeypatch.setattr(debian.PackageFolder, "_apt", apt)
    folder = debian.PackageFolder(tmp_path)
    folder.fetch(["munge"], "unused")
    lists = f"-oDir::State::Lists={tmp_path}/lists"
    assert asked == [
        ["--download-only", "install", "munge"],
        ["update", lists],
        ["--download-only", "install", "munge", lists],
    ]


def test_a_package_under_its_versioned_name_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def apt(self: debian.PackageFolder, arguments: list[str], options: list[str]) -> str:
        return "" if "mariadb-server-core-10.6" in arguments else "no such package"

    monkeypatch.setattr(debian.PackageFolder, "_apt", apt)
    debian.PackageFolder(tmp_path).fetch(["slurm", "mariadb"], "unused")


@given(st.integers(0, 99), st.integers(0, 99))
def test_versions_are_read(year: int, month: int) -> None:
    assert debian.parse_version(f"slurm-wlm {year}.{month:02}.8\n") == (year, month)


@given(st.text(alphabet=st.characters(exclude_characters=".")))
def test_a_text_without_a_version_gets_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="names no version"):
        debian.parse_version(text)


@pytest.mark.parametrize(
    ("root_user", "names", "password", "needed"),
    [
        (False, {"ada"}, "!", False),
        (True, {"root", "sshd"}, "*", False),
        (True, {"root"}, "*", True),
        (True, {"root", "sshd"}, "!locked", True),
    ],
)
def test_a_user_list_of_our_own_only_where_sshd_insists(
    root_user: bool, names: set[str], password: str, needed: bool
) -> None:
    assert debian.needs_own_users(root_user, names, password) is needed


def test_a_wrapped_client_gets_its_libraries_its_name_and_its_arguments(tmp_path: Path) -> None:
    folder = debian.PackageFolder(tmp_path / "it's here")
    program = folder.root / "usr/bin/squeue"
    program.parent.mkdir(parents=True)
    shutil.copy(shutil.which("env") or "/usr/bin/env", program)
    folder._wrap_clients()
    done = subprocess.run(
        [folder.folder / "bin/squeue", "A=two words", "-u", "LD_LIBRARY_PATH"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath},
    )
    # env takes the second word for a command: it names itself and shows that words stay whole.
    assert done.stderr.startswith("squeue: ")
