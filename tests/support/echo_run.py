"""The files of a small run of the echo engine, which only waits and answers."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nightshard.clusters.layout import RunLayout
from nightshard.results.arrow import REQUEST_SCHEMA

FINGERPRINT = "f" * 32


def echo_spec(
    layout: RunLayout,
    world_size: int,
    shared: Path,
    options: dict[str, float],
    flush: dict[str, float],
    *,
    balance: str = "static",
) -> bytes:
    """Render ``spec.json``, with a model folder on the cluster's shared file system."""
    model = shared / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    spec = {
        "contract_version": 2,
        "run_key": layout.run_key,
        "fingerprint": FINGERPRINT,
        "world_size": world_size,
        "model": {"name": "echo", "path": str(model), "revision": "none"},
        "engine": {
            "name": "echo",
            "dtype": "auto",
            "tensor_parallel": 1,
            "max_model_len": None,
            "gpu_memory_utilization": None,
            "enforce_eager": False,
            "options": {"concurrency": 1, **options},
        },
        "chat_template_args": {},
        "flush": flush,
        "balance": balance,
        "progress_seconds": 0.2,
    }
    return json.dumps(spec).encode()


def echo_input(questions: Iterable[tuple[str, str]]) -> bytes:
    """Render a shard's input from ids and texts of its questions."""
    rows = [
        {
            "request_id": request_id,
            "benchmark": "Test",
            "problem_id": str(number),
            "repeat_idx": 0,
            "messages": [{"role": "user", "content": text}],
            "sampling": {
                "temperature": 0.0,
                "top_p": 1.0,
                "max_tokens": 16,
                "seed": number,
                "stop": [],
            },
        }
        for number, (request_id, text) in enumerate(questions)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA), sink)
    return sink.getvalue().to_pybytes()
