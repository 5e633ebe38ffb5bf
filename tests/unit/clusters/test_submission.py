"""A run of any size becomes arrays that Slurm and the site take, and every shard is in one."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.layout import RunLayout
from nightshard.clusters.slurm import expand_indices
from nightshard.clusters.submission import Shard, array_size, first_submissions

pytestmark = pytest.mark.unit

LAYOUT = RunLayout(PurePosixPath("/work"), "run-1")


def shard(rank: int, world_size: int, size: int) -> Shard:
    return Shard(LAYOUT, rank, world_size, 5, "f", size, "/work/worker.zip", 60)


@given(st.integers(1, 5000), st.integers(1, 1500), st.none() | st.integers(1, 3000))
def test_each_shard_is_in_one_array_of_an_allowed_size(
    world_size: int, max_array_size: int, max_submitted: int | None
) -> None:
    size = array_size(world_size, max_array_size, max_submitted)
    arrays = first_submissions(LAYOUT, world_size, size)

    found = []
    for one in arrays:
        indices = expand_indices(one.indices)
        assert max(indices) < max_array_size
        assert len(indices) <= (max_submitted or world_size)
        found += [one.first_rank + index for index in indices]
    assert found == list(range(world_size))
    assert len({one.job_name for one in arrays}) == len(arrays)


@given(st.data())
def test_a_shard_knows_the_array_that_it_is_in(data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, 300))
    size = data.draw(st.integers(1, world_size))
    rank = data.draw(st.integers(0, world_size - 1))
    (array,) = (a for a in first_submissions(LAYOUT, world_size, size) if rank in a.ranks)

    assert shard(rank, world_size, size).submission(1) == array
    again = shard(rank, world_size, size).submission(3)
    assert list(again.ranks) == [rank]
    assert expand_indices(again.indices) == [rank - array.first_rank]
    assert again.job_name == f"ns-run-1-a3-r{rank}"


def test_a_run_that_fits_is_one_array_with_a_plain_name() -> None:
    (array,) = first_submissions(LAYOUT, 8, 8)
    assert (array.job_name, array.indices) == ("ns-run-1-a1", "0-7")
    assert str(array.script) == "/work/runs/run-1/job-a1.sbatch"


def test_the_log_of_a_later_array_leads_to_the_shards_own_folder() -> None:
    assert LAYOUT.log_pattern(2) == "/work/runs/run-1/shards/%5a/attempt-2.log"
    assert LAYOUT.log_pattern(2, 1000) == "/work/runs/run-1/links/01000/%5a/attempt-2.log"


def test_a_shard_survives_its_json() -> None:
    one = shard(3, 8, 4)
    assert Shard.from_dict(json.loads(json.dumps(one.to_dict()))) == one
