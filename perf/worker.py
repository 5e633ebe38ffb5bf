"""The shard worker beside bare vLLM: tokens a second, the cost of safe answers, the start.

Pairs of processes answer the same prompts with the same settings, in an order that alternates: a
shard of the worker, and ``vllm.LLM.generate`` with the requests that the worker would make of them.
Goals: at least 0.98 of bare vLLM's tokens a second, and at most 1 s more until the engine is ready.

    make perf NAME=worker [ARGS=--quick]

On a GPU: ``make perf NAME=worker ARGS="--model /models/mine --dtype bfloat16 --requests 512"`` with
``NIGHTSHARD_WORKER_ENV`` naming the environment that has vLLM.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nightshard.benchmarks.starter import Starter
from nightshard.core.settings import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "shard_worker" / "src"))

from shard_worker.layout import ShardLayout
from shard_worker.rows import Message, Request, Sampling, requests_to_bytes

SOURCE = PROJECT_ROOT / "shard_worker" / "src"

BARE = """
import json, sys, time
began = float(sys.argv[2])
from pathlib import Path
from shard_worker.contract import load_spec
from shard_worker.layout import ShardLayout
from shard_worker.rows import read_requests
from shard_worker.templating import render_prompt
layout = ShardLayout(Path(sys.argv[1]), 0, 1)
spec, requests = load_spec(layout.spec), read_requests(layout.inputs)
from transformers import AutoTokenizer
from vllm import LLM, SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
tokenizer = AutoTokenizer.from_pretrained(str(spec.model_path), local_files_only=True)
ids = [render_prompt(tokenizer, one.messages, {}) for one in requests]
length = max(len(a) + one.sampling.max_tokens for a, one in zip(ids, requests))
more = {"enable_chunked_prefill": False} if current_platform.is_cpu() else {}
llm = LLM(model=str(spec.model_path), dtype=spec.engine.dtype, max_model_len=length, seed=0,
          enforce_eager=spec.engine.enforce_eager, disable_log_stats=True,
          **{**spec.engine.options, **more})
ready = time.time()
outputs = llm.generate(
    [{"prompt_token_ids": one} for one in ids],
    [SamplingParams(temperature=one.sampling.temperature, top_p=one.sampling.top_p,
                    max_tokens=one.sampling.max_tokens, seed=one.sampling.seed,
                    output_kind=RequestOutputKind.FINAL_ONLY) for one in requests],
    use_tqdm=False)
done = time.time()
print(json.dumps({"ready_s": ready - began, "generate_s": done - ready,
                  "tokens": sum(len(one.outputs[0].token_ids) for one in outputs)}))
"""

FLUSHED = """
import json, sys, time
from pathlib import Path
from shard_worker import parts
spent = 0.0
flush = parts.PartWriter.flush
def timed(self):
    global spent
    began = time.monotonic()
    try:
        return flush(self)
    finally:
        spent += time.monotonic() - began
parts.PartWriter.flush = timed
from shard_worker import cli, generate
loaded = []
guard = generate.Generation._load
def load(self):
    result = guard(self)
    loaded.append(time.time())
    return result
generate.Generation._load = load
code = cli.main(["run", "--run-dir", sys.argv[1], "--rank", "0", "--world-size", "1"])
assert code == 0, code
print(json.dumps({"ready_s": loaded[0] - float(sys.argv[2]), "flush_s": spent}))
"""


@dataclass(frozen=True)
class Measured:
    """One process.

    Attributes:
        wall_s: from its start to its end.
        ready_s: from its start until the engine can generate.
        generate_s: of generation.
        tokens: generated.
        flush_s: spent on writing parts, for the worker.
    """

    wall_s: float
    ready_s: float
    generate_s: float
    tokens: int
    flush_s: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second of generation."""
        return self.tokens / self.generate_s


def main() -> None:
    """Measure, print the table and the line that names the goals' figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair, few requests")
    parser.add_argument("--model", type=Path, help="folder of the weights")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--pairs", type=int)
    arguments = parser.parse_args()
    quick = arguments.quick
    model = arguments.model or next((PROJECT_ROOT / ".nightshard" / "models").iterdir())
    requests = _requests(
        arguments.requests or (16 if quick else 64), arguments.max_tokens or (48 if quick else 128)
    )
    pairs = arguments.pairs or (1 if quick else 4)
    ours: list[Measured] = []
    bare: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="nightshard-worker-") as name:
        for pair in range(pairs):
            turns = [("ours", ours), ("bare", bare)]
            for what, found in turns if pair % 2 == 0 else reversed(turns):
                folder = Path(name) / f"{pair}-{what}"
                _write(folder, model.absolute(), arguments.dtype, requests)
                found.append(_worker(folder) if what == "ours" else _bare(folder))
    report(ours, bare, len(requests))


def _requests(count: int, max_tokens: int) -> list[Request]:
    starter = Starter()
    problems = starter.load()
    return [
        Request(
            request_id=f"{at:032x}",
            benchmark="Starter",
            problem_id=str(at),
            repeat_idx=0,
            messages=tuple(
                Message(role=one["role"], content=one["content"])
                for one in starter.messages(problems[at % len(problems)])
            ),
            sampling=Sampling(0.7, 0.95, max_tokens, 1000 + 7 * at, ()),
            cost=float(max_tokens),
        )
        for at in range(count)
    ]


def _write(folder: Path, model: Path, dtype: str, requests: list[Request]) -> None:
    layout = ShardLayout(folder, 0, 1)
    layout.inputs.parent.mkdir(parents=True)
    layout.inputs.write_bytes(requests_to_bytes(requests))
    spec = {
        "contract_version": 2,
        "run_key": "perf",
        "fingerprint": "f" * 32,
        "world_size": 1,
        "model": {"name": model.name, "path": str(model), "revision": "r"},
        "engine": {
            "name": "vllm",
            "dtype": dtype,
            "tensor_parallel": 1,
            "max_model_len": None,
            "gpu_memory_utilization": None,
            "enforce_eager": True,
            "options": {"max_num_seqs": 64},
        },
        "chat_template_args": {},
        "balance": "steal",
        "flush": {"rows": 32, "seconds": 10.0},
        "progress_seconds": 2.0,
    }
    layout.spec.write_text(json.dumps(spec))


def _run(code: str, folder: Path) -> tuple[dict[str, Any], float]:
    python = os.environ.get(
        "NIGHTSHARD_WORKER_ENV", str(PROJECT_ROOT / ".nightshard" / "worker-env")
    )
    environment = {
        "PYTHONPATH": str(SOURCE),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    began = time.time()
    done = subprocess.run(
        [f"{python}/bin/python", "-c", code, str(folder), str(began)],
        env={**environment, **os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1]), time.time() - began


def _worker(folder: Path) -> Measured:
    told, wall_s = _run(FLUSHED, folder)
    manifest = json.loads(ShardLayout(folder, 0, 1).manifest.read_text())
    return Measured(
        wall_s,
        told["ready_s"],
        manifest["timings"]["generate_s"],
        manifest["output_tokens"],
        told["flush_s"],
    )


def _bare(folder: Path) -> Measured:
    told, wall_s = _run(BARE, folder)
    return Measured(wall_s, told["ready_s"], told["generate_s"], told["tokens"])


def report(ours: list[Measured], bare: list[Measured], count: int) -> None:
    """Print medians with their spread."""
    table = Table(title=f"{count} requests, {len(ours)} pairs: median (least to most)")
    for column in ("what", "shard worker", "bare vLLM"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, attribute in {
        "tokens a second": "rate",
        "generation, s": "generate_s",
        "start until ready, s": "ready_s",
        "whole process, s": "wall_s",
        "writing parts, s": "flush_s",
    }.items():
        table.add_row(
            what, *(_spread([getattr(one, attribute) for one in some]) for some in (ours, bare))
        )
    Console(width=100).print(table)
    rates = [our.rate / their.rate for our, their in zip(ours, bare, strict=True)]
    walls = [our.wall_s / their.wall_s for our, their in zip(ours, bare, strict=True)]
    starts = [our.ready_s - their.ready_s for our, their in zip(ours, bare, strict=True)]
    flushed = statistics.median(one.flush_s / one.generate_s for one in ours)
    print(
        f"perf worker: tokens_per_s_over_bare={statistics.median(rates):.3f} goal=0.98 "
        f"least={min(rates):.3f} most={max(rates):.3f} "
        f"wall_over_bare={statistics.median(walls):.3f} "
        f"start_beyond_bare_s={statistics.median(starts):.2f} "
        f"flush_share={flushed:.4f} requests={count} pairs={len(ours)}"
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})"


if __name__ == "__main__":
    main()
