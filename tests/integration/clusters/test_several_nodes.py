"""One shard over two nodes, with Slurm's srun and vLLM's tensor parallelism, both real."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.echo_run import FINGERPRINT, echo_input, echo_spec

from nightshard.clusters.script import render_script
from nightshard.clusters.slurm import ShardState
from nightshard.clusters.staging import ensure_worker, stage_run
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submission import first_submissions
from nightshard.clusters.submit import submit_array
from nightshard.core.settings import PROJECT_ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(480)]

ENV = {
    "VLLM_CPU_KVCACHE_SPACE": 1,
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": 1,
    "VLLM_NO_USAGE_STATS": 1,
}
"""What include/clusters/local.yaml sets for two shards on one machine."""

ROWS = 6
QUESTIONS = [(f"{row:032x}", f"How much is {row} + 4?") for row in range(ROWS)]


async def answers(runs, model: Path, python: Path, nodes: int) -> dict[str, str]:
    """Answer the questions with a model spread over some nodes."""
    profile = runs.profile(
        slurm={"partition": "main", "cpus_per_task": 1, "nodes_per_shard": nodes},
        worker={"python": str(python), "env": ENV},
        engine={"tensor_parallel": nodes},
    )
    layout = runs.layout()
    worker = await ensure_worker(runs.transport, profile, PROJECT_ROOT / "shard_worker" / "src")
    spec = json.loads(echo_spec(layout, 1, runs.info.shared, {}, {"rows": 1, "seconds": 1.0}))
    spec["model"]["path"] = str(model)
    spec["engine"] |= {
        "name": "vllm",
        "dtype": "float32",
        "tensor_parallel": nodes,
        "enforce_eager": True,
        "options": {},
    }
    files: dict[str, Path | bytes] = {
        "spec.json": json.dumps(spec).encode(),
        f"inputs/{layout.input_file(0, 1).name}": echo_input(QUESTIONS),
    }
    await stage_run(runs.transport, layout, files, 1)
    (submission,) = first_submissions(layout, 1, 1)
    script = render_script(
        profile,
        submission,
        world_size=1,
        max_job_minutes=5,
        worker_zip=worker,
        templates=PROJECT_ROOT / "include" / "sbatch",
    )
    job = await submit_array(runs.transport, submission, script)
    shard = WatchedShard(layout, 0, 1, job, ROWS, FINGERPRINT)
    story = [status async for status in runs.poller().watch(shard)]
    log = Path(layout.attempt_log(0, 1)).read_text()
    assert story[-1].state is ShardState.ENDED_WELL, log
    assert ("node 1 joins start 1 of the engine" in log) == (nodes > 1)
    table = pq.read_table(layout.output_file(0, 1), columns=["request_id", "text"])
    return dict(zip(*table.to_pydict().values(), strict=True))


@pytest.fixture
def model(local_cluster, worker_env: Path) -> Path:
    folder = local_cluster.shared / "tiny"
    make = PROJECT_ROOT / "shard_worker" / "tests" / "tiny_model.py"
    subprocess.run([worker_env / "bin" / "python", make, folder], check=True, timeout=120)
    return folder


async def test_a_model_spread_over_two_nodes_answers_as_on_one(
    runs, model: Path, worker_env: Path
) -> None:
    python = worker_env / "bin" / "python"
    spread = await answers(runs, model, python, nodes=2)
    alone = await answers(runs, model, python, nodes=1)

    assert len(spread) == ROWS
    assert spread == alone
