"""Whether a shard could run here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worker_testing import SOURCE

from shard_worker import cli

pytestmark = pytest.mark.unit


def safetensors(tensors: int = 1) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [tensors], "data_offsets": [0, 4 * tensors]}}
    )
    return len(header).to_bytes(8, "little") + header.encode() + bytes(4 * tensors)


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
    assert list(found) == ["packages", "import", "gpu", "disk", "links", "model", "tokenizer"]


def broken(weights: Path, what: str) -> None:
    match what:
        case "torn":
            (weights / "model.safetensors").write_bytes(safetensors(100)[:-7])
        case "start":
            (weights / "model.safetensors").write_bytes(b"\x00")
        case "missing":
            index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
            (weights / "model.safetensors.index.json").write_text(json.dumps(index))
            (weights / "one.safetensors").write_bytes(safetensors())
        case "none":
            (weights / "model.safetensors").unlink()
        case "config":
            (weights / "config.json").unlink()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("torn", "bytes of"),
        ("start", "is torn at its start; copy the model again"),
        ("missing", "1 of 2 files of weights are missing"),
        ("none", "holds no weights"),
        ("config", "has no config.json"),
    ],
)
def test_a_broken_model_is_said_in_a_sentence(
    check: Callable[..., Any], weights: Path, what: str, sentence: str
) -> None:
    broken(weights, what)
    code, found = check()
    assert code == 2
    assert not found["model"]["ok"]
    assert sentence in found["model"]["sentence"]
    assert all(one["ok"] for key, one in found.items() if key != "model")


def test_a_work_folder_that_is_not_there_is_said(check: Callable[..., Any]) -> None:
    code, found = check("--work-dir=/no/such/folder")
    assert code == 2
    assert "The folder /no/such/folder does not exist" in found["disk"]["sentence"]


def test_a_gpu_that_must_be_there_and_is_not_fails(check: Callable[..., Any]) -> None:
    code, found = check("--gpu")
    assert code == 2
    assert "NVML finds no GPU" in found["gpu"]["sentence"]


def test_a_disk_without_hard_links_is_said(
    check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    code, found = check()
    assert code == 2
    assert "set defaults.balance to static" in found["links"]["sentence"]


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
    assert "ok   model" in done.stdout
