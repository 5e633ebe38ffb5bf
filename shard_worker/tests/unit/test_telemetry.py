"""What an attempt did with its time."""

import itertools
import json
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_testing import Run

from shard_worker.contract import violations
from shard_worker.gpu import find_gpus
from shard_worker.rows import Request
from shard_worker.telemetry import MOST_POINTS, Telemetry

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_occupancy_is_weighted_by_time_and_idle_time_is_told_apart() -> None:
    clock = Clock()
    telemetry = Telemetry(clock=clock)
    telemetry.generating()
    for running, seconds in ((8, 3.0), (4, 1.0), (0, 1.0)):
        clock.now += seconds
        telemetry.step(running, 8)
    told = telemetry.summary()
    assert told["occupancy"] == 0.7
    assert told["idle_s"] == 1.0
    assert told["answers_per_gpu_hour"] is None


@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 5000)), max_size=80))
def test_tokens_over_time_add_up_to_all_tokens(answers: list[tuple[float, int]]) -> None:
    clock = Clock()
    telemetry = Telemetry(clock=clock)
    for seconds, tokens in answers:
        clock.now += seconds
        telemetry.answer(10, tokens)
    points = telemetry.summary()["tokens_per_s"]
    assert len(points) <= MOST_POINTS
    width = points[1][0] - points[0][0] if len(points) > 1 else 1.0
    total = sum(rate * width for _, rate in points)
    assert total == pytest.approx(sum(tokens for _, tokens in answers), abs=0.06 * 60 * width)


def nvml() -> ModuleType:
    module = ModuleType("pynvml")
    module.nvmlInit = lambda: None  # type: ignore[attr-defined]
    module.nvmlDeviceGetCount = lambda: 4  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = lambda at: at  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByUUID = lambda uuid: {"GPU-b": 1}[uuid]  # type: ignore[attr-defined]
    module.nvmlDeviceGetUtilizationRates = lambda at: SimpleNamespace(gpu=20 * at)  # type: ignore[attr-defined]
    module.nvmlDeviceGetMemoryInfo = lambda at: SimpleNamespace(used=at << 30)  # type: ignore[attr-defined]
    drawn = itertools.count(5_000_000, 90_000)  # millijoules since the driver was loaded
    module.nvmlDeviceGetTotalEnergyConsumption = lambda at: next(drawn)  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("visible", "count", "util"), [(None, 4, 30), ("2", 1, 40), ("GPU-b,3", 2, 40)]
)
def test_only_the_gpus_of_this_job_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, util: float
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    gpus = find_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert gpus is not None
    assert gpus.count == count
    clock = Clock()
    telemetry = Telemetry(gpus=gpus, clock=clock)
    gpus.look()
    telemetry.answer(1, 500)
    clock.now += 1800
    telemetry.close()
    told = telemetry.summary()
    assert (told["gpu_util"], telemetry.snapshot()["gpu_util"]) == (util, util)
    assert told["gpu_seconds"] == 1800 * count
    assert told["energy_j"] == 90.0 * count * count
    assert told["output_tokens_per_gpu_hour"] == 1000 / count


def test_without_gpus_nothing_is_said_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "vllm.third_party.pynvml", None)
    assert find_gpus({}) is None


def test_the_manifest_and_the_progress_tell_it(
    run: Run, echo_run: Callable[..., list[Request]], here: Callable[[], int]
) -> None:
    echo_run(20, seconds_per_request=0.01, concurrency=5)
    assert here() == 0
    manifest = run.manifest()
    assert violations("manifest", manifest) == []
    assert 0.5 < manifest["telemetry"]["occupancy"] <= 1
    assert manifest["telemetry"]["restarts"] == 0
    assert json.loads(run.layout.progress.read_text())["telemetry"]["gpu_util"] is None
