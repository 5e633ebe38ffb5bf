"""Both halves read and write the same files, though they share no code."""

import hashlib
import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.merging import merge_shards

from nightshard.benchmarks.registry import get
from nightshard.benchmarks.requests import build_requests
from nightshard.core.settings import Settings
from nightshard.results.arrow import ANSWER_SCHEMA, REQUEST_SCHEMA, planned_table, requests_to_table
from nightshard.results.merge import ShardOutput

pytestmark = pytest.mark.unit

WORKER = Settings.from_env({}).worker_source
EXAMPLE_MANIFEST = {
    "contract_version": 2,
    "run_key": "run",
    "fingerprint": "fp",
    "rank": 0,
    "world_size": 1,
    "attempt": 1,
    "errors": 0,
    "output_file": "shard-00000-of-00001.parquet",
    "prompt_tokens": 0,
    "output_tokens": 0,
    "timings": {"import_s": 0, "load_s": 0, "generate_s": 0, "total_s": 0},
    "gpu": None,
    "node": "node1",
    "slurm": {"job_id": None, "array_job_id": None, "array_task_id": None, "cluster": None},
    "versions": {},
    "started_at": "2026-01-02T00:00:00+00:00",
    "finished_at": "2026-01-02T00:00:00+00:00",
}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The worker's own description of the rows; only this test looks at both."""
    monkeypatch.syspath_prepend(WORKER)
    return importlib.import_module("shard_worker.rows")


def test_both_halves_name_the_same_columns_and_types(rows: ModuleType) -> None:
    assert rows.INPUT_SCHEMA.equals(REQUEST_SCHEMA)
    assert rows.OUTPUT_SCHEMA.equals(ANSWER_SCHEMA)


def test_the_worker_reads_the_inputs_of_the_control_plane(rows: ModuleType, tmp_path: Path) -> None:
    benchmark = get("Starter")
    requests = build_requests(benchmark, benchmark.load(), system_prompt="Be brief.", limit=3)
    pq.write_table(requests_to_table(requests), tmp_path / "input.parquet")
    read = rows.read_requests(tmp_path / "input.parquet")
    assert [r.request_id for r in read] == [r.request_id for r in requests]
    assert [r.messages for r in read] == [r.messages for r in requests]
    assert [r.sampling.seed for r in read] == [r.sampling.seed for r in requests]


def test_the_control_plane_merges_the_outputs_of_the_worker(rows: ModuleType) -> None:
    benchmark = get("Starter")
    requests = build_requests(benchmark, benchmark.load(), limit=3)
    answers = [
        rows.Answer(
            request_id=request.request_id,
            benchmark=request.benchmark,
            problem_id=request.problem_id,
            repeat_idx=request.repeat_idx,
            text="\\boxed{7}",
            output_tokens=4,
            prompt_tokens=9,
            finish_reason="stop",
            seconds=0.25,
            finished_at=datetime(2026, 1, 2, tzinfo=UTC),
            error=None,
            rank=0,
            attempt=1,
        )
        for request in reversed(requests)
    ]
    data = rows.answers_to_bytes(answers, {"run_key": "run"})
    manifest = EXAMPLE_MANIFEST | {"rows": 3, "sha256": hashlib.sha256(data).hexdigest()}
    schema = json.loads((WORKER / "shard_worker/schemas/manifest.schema.json").read_text())
    merged = merge_shards(
        planned_table(requests, [requests]),
        [ShardOutput(data, manifest)],
        run_key="run",
        fingerprint="fp",
        manifest_schema=schema,
    )
    assert merged.column("request_id").to_pylist() == [r.request_id for r in requests]
    assert merged.schema.field("finished_at").type == pa.timestamp("us", tz="UTC")
