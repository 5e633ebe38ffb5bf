"""Several shards in one job keep out of each other's way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_testing import SOURCE, Run, make_requests, make_spec

from shard_worker.errors import ConfigError, Exit
from shard_worker.layout import ShardLayout
from shard_worker.seats import FIRST_PORT, part_of, take_seat

pytestmark = pytest.mark.unit


@given(st.integers(1, 8), st.integers(1, 8))
def test_every_gpu_belongs_to_one_seat(each: int, seats: int) -> None:
    devices = [f"GPU-{number}" for number in range(each * seats)]
    parts = [part_of(devices, seat, seats, "GPUs") for seat in range(seats)]
    assert [one for part in parts for one in part] == devices
    assert {len(part) for part in parts} == {each}


def test_gpus_that_cannot_be_shared_equally_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="4 shards share this job, and it has 6 GPUs in CUDA"):
        take_seat({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"}, 1, 4)


def test_a_seat_has_gpus_ports_and_cores_of_its_own() -> None:
    program = (
        "import json, os\n"
        "from shard_worker.seats import take_seat\n"
        "import sys\n"
        "take_seat(os.environ, int(sys.argv[1]), 2)\n"
        "print(json.dumps([os.environ['CUDA_VISIBLE_DEVICES'], os.environ['VLLM_PORT'],"
        " sorted(os.sched_getaffinity(0))]))"
    )
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "3,5,6,7", "PYTHONPATH": str(SOURCE)}
    seen = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", program, str(seat)],
                env=environ,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for seat in (0, 1)
    ]
    assert [gpus for gpus, *_ in seen] == ["3,5", "6,7"]
    assert [int(port) for _, port, _ in seen] == [FIRST_PORT, FIRST_PORT + 200]
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(seen[0][2]) & set(seen[1][2])


def test_a_job_of_one_shard_is_left_as_it_is() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0,1,2"}
    take_seat(environ, 0, 1)
    assert environ == {"CUDA_VISIBLE_DEVICES": "0,1,2"}


@pytest.mark.parametrize(("again", "code"), [(False, Exit.CLAIM_HELD), (True, Exit.DONE)])
def test_a_shard_that_was_given_up_stays_so_when_its_job_runs_again_for_others(
    tmp_path: Path, model: Path, again: bool, code: Exit
) -> None:
    run = Run(tmp_path)
    run.write(make_spec(model), make_requests(3))
    layout = ShardLayout(tmp_path, 0, 1)
    layout.folder.mkdir(parents=True)
    layout.record(1).write_text(json.dumps({"rank": 0, "attempt": 1, "again": again}))
    process = subprocess.run(
        [run.python, *run.arguments(2), "--seat", "1", "--seats", "2"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == code, process.stderr
    assert ("was given up after attempt 1" in process.stderr) is not again
