"""Whether the GPUs of a node can be used, and take the model."""

import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shard_worker.errors import ConfigError
from shard_worker.findings import GIB, Outcome, Wish, run_python
from shard_worker.gpu import NVML_MODULES, visible_handles
from shard_worker.selfcheck_model import weights_gib

SHARE = 0.9
"""vLLM's own default of ``gpu_memory_utilization``: what it takes of a GPU."""

SMI_S = 10.0
QUERY = "index,uuid,name,memory.total,memory.free,driver_version"
TORCH_ENGINES = ("vllm", "transformers")

_TORCH = """
import json, torch
view = {"cuda": torch.version.cuda, "count": torch.cuda.device_count(), "trouble": None}
if view["cuda"] and view["count"]:
    try:
        for at in range(view["count"]):
            assert (torch.ones(8, device=f"cuda:{at}") + 1).sum().item() == 16
    except Exception as error:
        view["trouble"] = (str(error).strip().splitlines() or [repr(error)])[0]
print(json.dumps(view))
"""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU: its name, and its memory in GiB."""

    name: str
    total: float
    free: float


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver says.

    Attributes:
        version: of the driver.
        cuda: newest CUDA that it runs, (major, minor); None where it does not say.
        cards: GPUs that this job may use.
    """

    version: str
    cuda: tuple[int, int] | None
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class TorchView:
    """What PyTorch says.

    Attributes:
        cuda: version that it was built for, None for a build without CUDA.
        count: GPUs that it sees.
        trouble: why a sum on a GPU failed, None if it did not.
    """

    cuda: str | None
    count: int
    trouble: str | None = None


def check_gpu(wish: Wish) -> Outcome:
    """Ask NVML or ``nvidia-smi``, then PyTorch where the engine uses it."""
    driver = by_nvml() or by_nvidia_smi()
    torch = None
    if driver is not None and driver.cards and wish.engine in TORCH_ENGINES:
        printed = run_python(wish, _TORCH, "PyTorch cannot use the GPU")
        torch = TorchView(**json.loads(printed.splitlines()[-1]))
    need = weights_gib(wish.model) if wish.model is not None else None
    outcome = judge_gpu(driver, torch, need, wanted=wish.gpu)
    if wish.engine == "vllm" and driver is not None and not _compiler():
        return Outcome(
            f"{outcome.sentence}, but no C compiler is here, which Triton needs to start vLLM; "
            "load a module with gcc in worker.setup",
            "warn",
        )
    return outcome


def _compiler() -> bool:
    return any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang", "cc"))))


def judge_gpu(
    driver: Driver | None, torch: TorchView | None, need: float | None, *, wanted: bool
) -> Outcome:
    """Judge what was found.

    Args:
        driver: None without a driver or a GPU.
        torch: None where it was not asked.
        need: size of the weights in GiB, None if not known.
        wanted: whether a GPU must be here.

    Raises:
        ConfigError: a shard could not use the GPUs, or there is none and one must be.
    """
    if driver is None or not driver.cards:
        if wanted:
            raise ConfigError(
                "Neither NVML nor nvidia-smi finds a GPU; run this in a job that asks for one "
                "(--gres or --gpus), and check CUDA_VISIBLE_DEVICES."
            )
        return Outcome("no GPU here, as on a login node; --gpu makes this a failure", "note")
    if torch is not None:
        _check_torch(driver, torch)
    if need is not None:
        tight = _check_memory(driver.cards, need)
        if tight:
            return Outcome(tight, "note")
    cards = ", ".join(
        f"{card.name} ({card.free:.1f} of {card.total:.1f} GiB free)" for card in driver.cards
    )
    return Outcome(f"{cards}, driver {driver.version}")


def _check_torch(driver: Driver, torch: TorchView) -> None:
    name = driver.cards[0].name
    if torch.cuda is None:
        raise ConfigError(
            f"PyTorch here is a build without CUDA, so it cannot use the {name}; install the "
            "versions of shard_worker/requirements.lock."
        )
    built = int(torch.cuda.split(".")[0])
    # A driver runs what was built for a newer minor version of its CUDA, not for a newer major one
    # (NVIDIA's "CUDA Compatibility").
    if driver.cuda is not None and built > driver.cuda[0]:
        raise ConfigError(
            f"Driver {driver.version} runs CUDA {driver.cuda[0]}.{driver.cuda[1]} at most, PyTorch "
            f"is built for {torch.cuda}; use nodes with a newer driver, or an environment for "
            f"CUDA {driver.cuda[0]}."
        )
    if torch.count == 0:
        raise ConfigError(
            f"The driver shows {len(driver.cards)} GPUs, PyTorch none; check CUDA_VISIBLE_DEVICES "
            "and that driver and kernel module are of one version (nvidia-smi)."
        )
    if torch.trouble is not None:
        raise ConfigError(
            f"PyTorch cannot compute on the {name} ({torch.trouble.rstrip('.')}); see whether the "
            "GPU is in use or this build supports it."
        )


def _check_memory(cards: Sequence[Card], need: float) -> str | None:
    """Return what to know of a model that takes more than one GPU, None if one is enough."""
    total = sum(card.total for card in cards)
    if need > SHARE * total:
        raise ConfigError(
            f"The weights have {need:.1f} GiB and the {len(cards)} GPUs here {total:.1f} GiB in "
            "all; ask for more GPUs and set engine.tensor_parallel."
        )
    if need > sum(card.free for card in cards):
        raise ConfigError(
            f"The weights have {need:.1f} GiB and other processes leave "
            f"{sum(card.free for card in cards):.1f} of {total:.1f} GiB free on the GPUs here; use "
            "a node of your own or end those processes (nvidia-smi)."
        )
    if need > SHARE * max(card.total for card in cards):
        return (
            f"the weights have {need:.1f} GiB and take all of the {len(cards)} GPUs here: set "
            f"engine.tensor_parallel to {len(cards)}"
        )
    return None


def by_nvml(environ: Mapping[str, str] = os.environ) -> Driver | None:
    """Ask NVML, None where there is none."""
    for name in NVML_MODULES:
        try:
            nvml = importlib.import_module(name)
            nvml.nvmlInit()
            handles = visible_handles(nvml, environ.get("CUDA_VISIBLE_DEVICES"))
            newest = nvml.nvmlSystemGetCudaDriverVersion()  # 13020 for CUDA 13.2
            version = _text(nvml.nvmlSystemGetDriverVersion())
            cards = tuple(_card(nvml, handle) for handle in handles)
        except Exception:  # noqa: BLE001, S112 (no module, no driver, a handle that is refused)
            continue
        return Driver(version, (newest // 1000, newest % 1000 // 10), cards)
    return None


def _card(nvml: Any, handle: Any) -> Card:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Card(_text(nvml.nvmlDeviceGetName(handle)), memory.total / GIB, memory.free / GIB)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def by_nvidia_smi(environ: Mapping[str, str] = os.environ) -> Driver | None:
    """Ask ``nvidia-smi``, None where it is not here or finds nothing."""
    if shutil.which("nvidia-smi") is None:
        return None
    table = _smi(f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    return parse_smi(table, _smi(), environ.get("CUDA_VISIBLE_DEVICES"))


def parse_smi(table: str, summary: str, visible: str | None) -> Driver | None:
    """Read what ``nvidia-smi`` prints.

    Args:
        table: lines of index, UUID, name, MiB in all, MiB free, driver's version.
        summary: what it prints without options; it has the CUDA version.
        visible: ``CUDA_VISIBLE_DEVICES``, which ``nvidia-smi`` does not heed.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    wanted = None if visible is None else {name.strip() for name in visible.split(",")}
    try:
        kept = [
            (Card(name, int(total) / 1024, int(free) / 1024), version)
            for index, uuid, name, total, free, version in rows
            if wanted is None or wanted & {index, uuid}
        ]
    except ValueError:
        return None
    if not kept:
        return None
    found = re.search(r"CUDA Version: (\d+)\.(\d+)", summary)
    cuda = (int(found[1]), int(found[2])) if found else None
    return Driver(kept[0][1], cuda, tuple(card for card, _ in kept))


def _smi(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments],  # noqa: S607 (where it lies depends on the site)
            capture_output=True,
            text=True,
            timeout=SMI_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout
