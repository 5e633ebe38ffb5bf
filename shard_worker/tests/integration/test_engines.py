"""The other engine that runs models itself, and what both do alike."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from worker_testing import Run, make_requests, make_spec

from shard_worker.rows import Answer, Request, answers_from_bytes

pytestmark = pytest.mark.integration

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
ADAPTER = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
folder = Path(sys.argv[2])
folder.mkdir()
torch.manual_seed(0)
weights = {}
for name, module in model.named_modules():
    if name.endswith(("q_proj", "v_proj")):
        key = f"base_model.model.{name}"
        weights[f"{key}.lora_A.weight"] = torch.randn(4, module.in_features)
        weights[f"{key}.lora_B.weight"] = torch.randn(module.out_features, 4)
save_file(weights, folder / "adapter_model.safetensors")
config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"],
          "base_model_name_or_path": sys.argv[1], "bias": "none", "task_type": "CAUSAL_LM"}
(folder / "adapter_config.json").write_text(json.dumps(config))
"""


def answered(
    folder: Path, python: str, model: Path, requests: list[Request], **changes: Any
) -> dict[str, Answer]:
    folder.mkdir()
    run = Run(folder, python=python)
    adapter = changes.pop("adapter", None)
    spec = make_spec(model, engine=changes)
    if adapter is not None:
        spec["model"]["adapter"] = {"name": "tuned", "path": str(adapter)}
    run.write(spec, requests)
    code, said = run.finish(env=ENVIRONMENT)
    assert code == 0, said
    found = answers_from_bytes(run.layout.output.read_bytes())[0]
    return {answer.request_id: answer for answer in found}


def test_both_engines_give_the_same_greedy_answers(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    requests = make_requests(4, max_tokens=12)
    vllm = answered(tmp_path / "v", worker_python, tiny_model, requests, name="vllm", logprobs=True)
    plain = answered(
        tmp_path / "t", worker_python, tiny_model, requests, name="transformers", logprobs=True
    )
    for key, answer in vllm.items():
        assert plain[key].text == answer.text
        assert plain[key].finish_reason == answer.finish_reason
        assert plain[key].prompt_tokens == answer.prompt_tokens
        assert answer.token_logprobs is not None
        assert len(answer.token_logprobs) == answer.output_tokens
        assert plain[key].token_logprobs == pytest.approx(answer.token_logprobs, abs=1e-3)


def test_an_adapter_changes_the_answers(
    tmp_path: Path, worker_python: str, tiny_model: Path
) -> None:
    adapter = tmp_path / "adapter"
    subprocess.run([worker_python, "-c", ADAPTER, tiny_model, adapter], check=True, timeout=100)
    requests = make_requests(6, max_tokens=12)
    options = {"name": "vllm", "options": {}}
    tuned = answered(
        tmp_path / "a", worker_python, tiny_model, requests, adapter=adapter, **options
    )
    bare = answered(tmp_path / "b", worker_python, tiny_model, requests, **options)
    assert [one.text for one in tuned.values()] != [one.text for one in bare.values()]
    assert json.loads((tmp_path / "a" / "spec.json").read_text())["model"]["adapter"]
