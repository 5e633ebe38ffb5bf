"""Models that are spread over a pipeline, and models with quantised weights."""

import os
import subprocess
from pathlib import Path

import pytest
from worker_testing import SOURCE, Run, make_requests, make_spec

pytestmark = pytest.mark.integration

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}

PLAN = """
import sys
from pathlib import Path
from vllm import EngineArgs
from shard_worker.contract import load_spec
from shard_worker.engines.vllm import VllmEngine
arguments = VllmEngine(load_spec(Path(sys.argv[1])))._arguments()
plan = EngineArgs(**arguments).create_engine_config().parallel_config
print(plan.pipeline_parallel_size, plan.world_size)
"""

QUANTISE = """
import json, shutil, sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
source, target = map(Path, sys.argv[1:])
shutil.copytree(source, target)
weights = load_file(source / "model.safetensors")
packed = {}
for name, value in weights.items():
    if name.endswith("proj.weight"):
        scale = value.abs().amax(dim=1, keepdim=True) / 127
        packed[name] = torch.round(value / scale).to(torch.int8)
        packed[name + "_scale"] = scale
    else:
        packed[name] = value
save_file(packed, target / "model.safetensors", metadata={"format": "pt"})
config = json.loads((source / "config.json").read_text())
eight = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False}
config["quantization_config"] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**eight, "strategy": "channel"},
            "input_activations": {**eight, "strategy": "token", "dynamic": True},
        }
    },
}
(target / "config.json").write_text(json.dumps(config))
"""


def test_a_pipeline_of_two_reaches_vllm(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    """vLLM's CPU build plans and loads a pipeline but cannot run one, with or without us."""
    run = Run(tmp_path, worker_python)
    options = {"pipeline_parallel_size": 2}
    run.write(make_spec(tiny_model, engine={"name": "vllm", "options": options}), [])
    plan = subprocess.run(
        [worker_python, "-c", PLAN, run.layout.spec],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(SOURCE)},
        check=True,
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert plan.stdout.split()[-2:] == ["2", "2"]


def test_quantised_weights_are_run_as_the_model_says(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    quantised = tmp_path / "int8"
    subprocess.run([worker_python, "-c", QUANTISE, tiny_model, quantised], check=True, timeout=100)
    requests = make_requests(6, max_tokens=12)
    run = Run(tmp_path / "run", worker_python)
    run.write(make_spec(quantised, engine={"name": "vllm"}), requests)
    code, said = run.finish(env=ENVIRONMENT)
    assert code == 0, said
    assert "compressed-tensors" in said
    assert run.manifest()["rows"] == len(requests)
    assert run.manifest()["errors"] == 0
