"""Whether the GPUs of a node can be used. The driver's answers are NVIDIA's own formats."""

import os
import stat
from pathlib import Path

import pytest

from shard_worker.errors import ConfigError
from shard_worker.findings import Wish
from shard_worker.selfcheck_gpu import (
    Card,
    Driver,
    TorchView,
    by_nvidia_smi,
    check_gpu,
    judge_gpu,
    parse_smi,
)

pytestmark = pytest.mark.unit

CARD = Card("NVIDIA H100 80GB HBM3", 80.0, 79.0)
BUSY = Card("NVIDIA H100 80GB HBM3", 80.0, 3.0)
TABLE = """\
0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 81000, 580.65.06
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559, 1024, 580.65.06
"""
SUMMARY = "| NVIDIA-SMI 580.65.06     Driver Version: 580.65.06     CUDA Version: 13.0     |\n"


def driver(*cards: Card, cuda: tuple[int, int] | None = (13, 0)) -> Driver:
    return Driver("580.65", cuda, cards or (CARD,))


def test_a_gpu_that_takes_the_model_is_named_with_its_memory_and_driver() -> None:
    said = judge_gpu(driver(), TorchView("13.0", 1), 15.0, wanted=True)
    assert said.level == "ok"
    assert said.sentence == "NVIDIA H100 80GB HBM3 (79.0 of 80.0 GiB free), driver 580.65"


def test_no_gpu_is_a_note_and_a_failure_only_where_one_must_be() -> None:
    assert judge_gpu(None, None, None, wanted=False).level == "note"
    with pytest.raises(ConfigError, match="Neither NVML nor nvidia-smi finds a GPU; run this in"):
        judge_gpu(None, None, None, wanted=True)


@pytest.mark.parametrize(
    ("found", "torch", "need", "sentence"),
    [
        (driver(), TorchView(None, 0), None, "PyTorch here is a build without CUDA"),
        (driver(cuda=(12, 8)), TorchView("13.0", 0), None, "runs CUDA 12.8 at most, PyTorch is"),
        (driver(), TorchView("13.0", 0), None, "The driver shows 1 GPUs, PyTorch none"),
        (
            driver(),
            TorchView("13.0", 1, "CUDA error: no kernel image is available"),
            None,
            "PyTorch cannot compute on the NVIDIA H100 80GB HBM3 (CUDA error: no kernel image is",
        ),
        (driver(), None, 140.0, "The weights have 140.0 GiB and the 1 GPUs here 80.0 GiB in all"),
        (driver(BUSY), None, 15.0, "other processes leave 3.0 of 80.0 GiB free"),
    ],
)
def test_gpus_that_cannot_be_used_are_said(
    found: Driver, torch: TorchView | None, need: float | None, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        judge_gpu(found, torch, need, wanted=False)
    assert sentence in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("cuda", [(13, 0), (13, 2), (14, 0), None])
def test_a_driver_of_the_same_major_cuda_or_a_later_one_will_do(
    cuda: tuple[int, int] | None,
) -> None:
    assert judge_gpu(driver(cuda=cuda), TorchView("13.2", 1), None, wanted=True).level == "ok"


def test_a_model_that_takes_all_gpus_together_says_how_to_split_it() -> None:
    said = judge_gpu(driver(CARD, CARD), TorchView("13.0", 2), 140.0, wanted=True)
    assert said.level == "note"
    assert "set engine.tensor_parallel to 2" in said.sentence


def test_what_nvidia_smi_prints_is_read() -> None:
    found = parse_smi(TABLE, SUMMARY, None)
    assert found is not None
    assert (found.version, found.cuda) == ("580.65.06", (13, 0))
    assert [round(card.free) for card in found.cards] == [79, 1]


@pytest.mark.parametrize("visible", ["1", "GPU-bbbb", "1,"])
def test_only_the_jobs_own_gpus_count(visible: str) -> None:
    found = parse_smi(TABLE, SUMMARY, visible)
    assert found is not None
    assert [card.free for card in found.cards] == [1.0]


@pytest.mark.parametrize("table", ["", "No devices were found\n", "0, a, b, [N/A], 1, 2\n"])
def test_anything_else_is_no_gpu(table: str) -> None:
    assert parse_smi(table, SUMMARY, None) is None


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH; it has a shell script as ``nvidia-smi``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    smi = folder / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        f"--query-gpu=*) printf '%s' '{TABLE}' ;;\n*) printf '%s' '{SUMMARY}' ;;\nesac\n"
    )
    smi.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def test_nvidia_smi_is_asked_where_nvml_is_not_installed(programs: Path) -> None:
    found = by_nvidia_smi({})
    assert found is not None
    assert (len(found.cards), found.cuda) == (2, (13, 0))
    assert by_nvidia_smi({"CUDA_VISIBLE_DEVICES": ""}) is None


def test_an_nvidia_smi_that_fails_is_no_gpu(programs: Path) -> None:
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho broken; exit 9\n")
    assert by_nvidia_smi(os.environ) is None


def test_a_missing_compiler_is_said_to_who_runs_vllm_on_a_gpu(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = '{"cuda": "13.0", "count": 2, "trouble": null}'
    monkeypatch.setattr("shard_worker.selfcheck_gpu.run_python", lambda *_: f"a warning\n{view}\n")
    monkeypatch.delenv("CC", raising=False)
    wish = Wish("vllm", None, tmp_path, gpu=True)
    said = check_gpu(wish)
    assert said.level == "warn"
    assert "no C compiler is here" in said.sentence
    compiler = programs / "gcc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(stat.S_IRWXU)
    assert check_gpu(wish).level == "ok"
