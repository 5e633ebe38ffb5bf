"""Whether a shard could run here."""

import contextlib
import json
import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_testing import SOURCE

from shard_worker import cli
from shard_worker.errors import ConfigError
from shard_worker.findings import Wish, run_python
from shard_worker.selfcheck import RANGES, out_of_range
from shard_worker.selfcheck_disk import Quota, check_disk, judge_quota, parse_quota
from shard_worker.selfcheck_model import check_model, check_weights

pytestmark = pytest.mark.unit


def safetensors(**sizes: int) -> bytes:
    places, at = {}, 0
    for name, size in (sizes or {"w": 1}).items():
        places[name] = {"dtype": "F32", "shape": [size], "data_offsets": [at, at + 4 * size]}
        at += 4 * size
    header = json.dumps({"__metadata__": {"format": "pt"}, **places}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(at)


@pytest.fixture
def weights(model: Path) -> Path:
    (model / "model.safetensors").write_bytes(safetensors())
    return model


@pytest.fixture
def check(
    weights: Path, tmp_path: Path, restored_process: None, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(*more: str) -> tuple[int, dict[str, Any]]:
        words = ["--engine=echo", f"--model={weights}", f"--work-dir={tmp_path}", "--json", *more]
        code = cli.main(["selfcheck", *words])
        found = json.loads(capsys.readouterr().out)
        return code, {one["what"]: one for one in found}

    return run


def test_a_node_that_can_run_a_shard_passes(check: Callable[..., Any]) -> None:
    code, found = check()
    assert code == 0
    assert all(one["ok"] for one in found.values())
    looked_at = ["python", "packages", "import", "gpu", "disk", "links", "quota"]
    assert list(found) == [*looked_at, "model", "tokenizer"]


def test_a_check_without_a_model_passes_and_looks_at_none(
    tmp_path: Path, restored_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["selfcheck", "--no-model", "--engine=echo", f"--work-dir={tmp_path}"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "ok   packages   shard_worker" in out
    assert " model " not in out


def write_index(weights: Path, **places: str) -> None:
    (weights / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def cut_off(model: Path) -> None:
    (model / "model.safetensors").write_bytes(safetensors(w=100)[:-7])


def no_safetensors(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"<html>not found</html>")


def lfs_pointer(model: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    (model / "model.safetensors").write_text(text)


def link_to_nothing(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("../../blobs/gone")


def folder_in_the_way(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").mkdir()


def one_missing(model: Path) -> None:
    write_index(model, a="one.safetensors", b="two.safetensors")
    (model / "one.safetensors").write_bytes(safetensors(a=1))


def two_models_mixed(model: Path) -> None:
    write_index(model, a="one.safetensors")
    (model / "one.safetensors").write_bytes(safetensors(b=1))


def torn_index(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text('{"weight_map": ')


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def torn_config(model: Path) -> None:
    (model / "config.json").write_text('{"max_')


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (cut_off, "is cut off"),
        (no_safetensors, "is torn at its start; copy the model again"),
        (lfs_pointer, "is a Git LFS pointer, not weights; run git lfs pull"),
        (link_to_nothing, "is a link to nothing"),
        (folder_in_the_way, "cannot be read (Is a directory)"),
        (one_missing, "1 of 2 files of weights are missing"),
        (two_models_mixed, "lacks a, which model.safetensors.index.json says is in it"),
        (torn_index, "is not an index of weights"),
        (no_weights, "holds no weights"),
        (no_config, "has no config.json"),
        (torn_config, "config.json is not valid JSON"),
    ],
)
def test_a_broken_model_is_said_in_one_sentence(
    weights: Path, break_it: Callable[[Path], None], sentence: str
) -> None:
    break_it(weights)
    with pytest.raises(ConfigError) as caught:
        check_model(Wish("echo", weights, weights, gpu=False))
    assert str(weights) in str(caught.value)
    assert sentence in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_failure_leaves_the_other_checks_alone(check: Callable[..., Any], weights: Path) -> None:
    cut_off(weights)
    code, found = check()
    assert code == 2
    assert [key for key, one in found.items() if not one["ok"]] == ["model"]


def test_a_model_whose_index_and_files_agree_passes(
    check: Callable[..., Any], weights: Path
) -> None:
    write_index(weights, a="one.safetensors", b="two.safetensors", c="two.safetensors")
    (weights / "one.safetensors").write_bytes(safetensors(a=3))
    (weights / "two.safetensors").write_bytes(safetensors(b=1, c=2))
    code, found = check()
    assert (code, found["model"]["level"]) == (0, "ok")
    assert "2 files of weights" in found["model"]["sentence"]


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 9), min_size=1), st.data())
def test_weights_cut_off_anywhere_are_never_taken_for_whole(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int], data: st.DataObject
) -> None:
    whole = safetensors(**sizes)
    file = tmp_path_factory.mktemp("cut") / "w.safetensors"
    file.write_bytes(whole)
    check_weights(file, frozenset(sizes))
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ConfigError, match=r"cut off|torn at its start"):
        check_weights(file, frozenset(sizes))


def test_weights_that_nobody_can_check_are_a_warning(
    check: Callable[..., Any], weights: Path
) -> None:
    (weights / "model.safetensors").rename(weights / "pytorch_model.bin")
    code, found = check()
    assert (code, found["model"]["level"]) == (0, "warn")


def test_a_model_that_states_no_longest_sequence_is_a_warning(
    check: Callable[..., Any], weights: Path
) -> None:
    (weights / "config.json").write_text("{}")
    code, found = check()
    assert (code, found["model"]["level"]) == (0, "warn")
    assert "set engine.max_model_len" in found["model"]["sentence"]


def test_a_work_folder_that_is_not_there_is_said(check: Callable[..., Any]) -> None:
    code, found = check("--work-dir=/no/such/folder")
    assert code == 2
    assert "The folder /no/such/folder does not exist" in found["disk"]["sentence"]


@contextlib.contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", *options, "none", str(folder)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("size=64k", "cannot be written to (No space left on device)"),
        ("size=8m", "GiB left; free some space"),
        ("size=2g,nr_inodes=50", "more files; remove some"),
        ("ro", "cannot be written to (Read-only file system)"),
    ],
)
def test_a_disk_that_takes_no_shard_is_said(tmp_path: Path, options: str, sentence: str) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, "-o", options), pytest.raises(ConfigError) as caught:
        check_disk(Wish("echo", None, folder, gpu=False))
    assert str(folder) in str(caught.value)
    assert sentence in str(caught.value)


def test_the_checks_leave_nothing_behind(check: Callable[..., Any], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    check()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_without_hard_links_is_said(
    check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    code, found = check()
    assert code == 2
    assert "set defaults.balance to static" in found["links"]["sentence"]


LFS = "        /work 20971520* 10485760 20971520 6d23h 12 0 0 -\n"
QUOTA = """\
Disk quotas for user somebody (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1  943718 1048576 1048576             951    1000    1000
"""


@pytest.mark.parametrize(
    ("report", "quotas"),
    [
        (LFS, [Quota("/work", "space", 20971520, 20971520), Quota("/work", "files", 12, 0)]),
        (
            QUOTA,
            [
                Quota("/dev/sda1", "space", 943718, 1048576),
                Quota("/dev/sda1", "files", 951, 1000),
            ],
        ),
        ("Disk quotas for user somebody (uid 1000): none\n", []),
        ("", []),
    ],
)
def test_quota_reports_of_both_programs_are_read(report: str, quotas: list[Quota]) -> None:
    assert parse_quota(report) == quotas


@given(st.text())
def test_any_other_report_is_no_quota_and_no_crash(report: str) -> None:
    assert isinstance(parse_quota(report), list)


def test_a_quota_that_is_used_up_fails_and_a_nearly_used_one_warns() -> None:
    with pytest.raises(ConfigError, match=r"used up \(20\.0 GiB of 20\.0 GiB on /work\)"):
        judge_quota(parse_quota(LFS))
    nearly = judge_quota(parse_quota(QUOTA))
    assert nearly.level == "warn"
    assert "951 files of 1,000 files on /dev/sda1" in nearly.sentence
    assert judge_quota([Quota("/w", "space", 1, 4)]).level == "ok"
    assert judge_quota([Quota("/w", "space", 1, 0)]).sentence.startswith("no quota is known")


def test_a_quota_program_of_the_site_is_asked(
    check: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "lfs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LFS}END\nexit 1\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    code, found = check()
    assert code == 2
    assert "The quota is used up" in found["quota"]["sentence"]


def test_ranges_are_those_of_the_project_file() -> None:
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["vllm"]]
    needs.append(f"python{project['requires-python']}")

    def text(name: str) -> str:
        first, before = RANGES[name]
        ends = [f">={'.'.join(map(str, first))}"]
        return ",".join(ends + ([f"<{'.'.join(map(str, before))}"] if before else []))

    assert sorted(needs) == sorted(f"{name}{text(name)}" for name in RANGES)


@pytest.mark.parametrize(
    ("name", "found", "sentence"),
    [
        ("vllm", "0.31.9", "vllm 0.31.9 is too old, the worker needs 0.32 or later"),
        ("vllm", "0.34.0rc1", "vllm 0.34.0rc1 is too new, the worker was tested below 0.34"),
        ("vllm", "0.33.0+cpu", None),
        ("python", "3.14.0", "python 3.14.0 is too new, the worker was tested below 3.14"),
        ("python", "3.13.0", None),
        ("torch", "9.9", None),
    ],
)
def test_versions_outside_the_range_are_said(name: str, found: str, sentence: str | None) -> None:
    assert out_of_range(name, found) == sentence


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("raise ImportError('no libcudart.so.13')", "It fails: ImportError: no libcudart.so.13;"),
        ("import os; os.kill(os.getpid(), 11)", "It fails: the process died of SIGSEGV;"),
        ("import time; time.sleep(60)", "It fails: it took more than 1 s;"),
        ("import sys; sys.exit(3)", "It fails: it ended with 3;"),
    ],
)
def test_an_import_that_fails_crashes_or_hangs_is_one_sentence(code: str, sentence: str) -> None:
    late = Wish("echo", None, Path(), gpu=False, deadline=0)
    with pytest.raises(ConfigError) as caught:
        run_python(late, code, "It fails")
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).count("\n") == 0


def test_an_unknown_engine_is_one_sentence(
    restored_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["selfcheck", "--no-model", "--engine=vlm"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "shard-worker: There is no engine 'vlm'; choose one of vllm, transformers, openai, echo.\n"
    )


def test_an_engine_that_is_not_here_is_said_and_the_rest_is_looked_at(
    weights: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "shard_worker", "selfcheck", "--engine", "vllm"),
            *("--model", weights, "--work-dir", tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "FAIL packages   vLLM is not installed in the environment of this Python" in done.stdout
    assert "FAIL import" in done.stdout
    assert "FAIL tokenizer" in done.stdout
    assert "ok   model" in done.stdout
    assert done.stderr.endswith("see what failed above.\n")
