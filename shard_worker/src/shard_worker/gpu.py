"""Utilisation and memory of this job's GPUs, by NVML where it is there."""

import importlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EVERY_S = 2.0
_GIB = 1 << 30
NVML_MODULES = ("pynvml", "vllm.third_party.pynvml")


@dataclass(slots=True)
class GpuUse:
    """What was seen of all GPUs together.

    Attributes:
        samples: number of looks.
        util_sum: sum over the looks of the mean utilisation, in percent.
        util: mean utilisation at the last look, in percent.
        memory_gib: memory in use on the fullest GPU at the last look.
        peak_gib: most that ``memory_gib`` has been.
    """

    samples: int = 0
    util_sum: float = 0.0
    util: float = 0.0
    memory_gib: float = 0.0
    peak_gib: float = 0.0


class GpuSampler:
    """Looks at this job's GPUs every two seconds, in a thread of its own.

    Args:
        nvml: the module ``pynvml``, initialised.
        handles: of the GPUs.
    """

    def __init__(self, nvml: Any, handles: Sequence[Any]) -> None:
        self._nvml = nvml
        self._handles = handles
        self._lock = threading.Lock()
        self._use = GpuUse()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu", daemon=True)
        self._energy_before = self._energy_mj()

    @property
    def count(self) -> int:
        """Number of GPUs."""
        return len(self._handles)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def use(self) -> GpuUse:
        """Return a copy of what was seen so far."""
        with self._lock:
            seen = self._use
            return GpuUse(seen.samples, seen.util_sum, seen.util, seen.memory_gib, seen.peak_gib)

    def energy_j(self) -> float | None:
        """Return what the GPUs drew since this was made, in joules; None where they do not tell.

        NVML counts millijoules since the driver was loaded, from Volta on.
        """
        now = self._energy_mj()
        if now is None or self._energy_before is None or now < self._energy_before:
            return None
        return (now - self._energy_before) / 1000

    def _energy_mj(self) -> int | None:
        try:
            count = self._nvml.nvmlDeviceGetTotalEnergyConsumption
            return sum(int(count(one)) for one in self._handles)
        except Exception:  # noqa: BLE001 (an older GPU, driver or NVML; each has its own error)
            return None

    def look(self) -> None:
        """Take one sample."""
        rates = [self._nvml.nvmlDeviceGetUtilizationRates(one).gpu for one in self._handles]
        used = [self._nvml.nvmlDeviceGetMemoryInfo(one).used for one in self._handles]
        with self._lock:
            use = self._use
            use.samples += 1
            use.util = sum(rates) / len(rates)
            use.util_sum += use.util
            use.memory_gib = max(used) / _GIB
            use.peak_gib = max(use.peak_gib, use.memory_gib)

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                self.look()
            except Exception:  # noqa: BLE001 (a GPU that is lost is the engine's to report)
                return


def find_gpus(environ: Mapping[str, str] = os.environ) -> GpuSampler | None:
    """Return a sampler of the GPUs that this job may use, None where there are none or no NVML."""
    for name in NVML_MODULES:
        try:
            nvml = importlib.import_module(name)
            nvml.nvmlInit()
            handles = visible_handles(nvml, environ.get("CUDA_VISIBLE_DEVICES"))
        except Exception:  # noqa: BLE001, S112 (no module, no driver, a handle that is refused)
            continue
        return GpuSampler(nvml, handles) if handles else None
    return None


def visible_handles(nvml: Any, visible: str | None) -> list[Any]:
    """Return the handles of the visible GPUs: all, or those named by index or UUID."""
    if visible is None:
        return [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return [
        nvml.nvmlDeviceGetHandleByIndex(int(name))
        if name.isdecimal()
        else nvml.nvmlDeviceGetHandleByUUID(name)
        for name in names
    ]
