"""A run of any size becomes arrays that Slurm and the site take, and every shard is in one."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.documents import Intent
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.slurm import expand_indices
from nightshard.clusters.submission import Shard, array_size, first_submissions, parse_label

pytestmark = pytest.mark.unit

LAYOUT = RunLayout(PurePosixPath("/work"), "run-1")


def shard(rank: int, world_size: int, size: int, per_job: int = 1) -> Shard:
    return Shard(LAYOUT, rank, world_size, 5, "f", size, "/work/worker.zip", 60, per_job)


@given(
    st.integers(1, 5000),
    st.integers(1, 1500),
    st.none() | st.integers(1, 3000),
    st.integers(1, 8),
)
def test_each_shard_is_in_one_array_of_an_allowed_size(
    world_size: int, max_array_size: int, max_submitted: int | None, per_job: int
) -> None:
    size = array_size(world_size, max_array_size, max_submitted, per_job)
    arrays = first_submissions(LAYOUT, world_size, size, per_job)

    found = []
    for one in arrays:
        indices = expand_indices(one.indices)
        assert len(indices) == one.elements
        assert max(indices) < max_array_size
        assert len(indices) <= (max_submitted or world_size)
        first = [one.first_rank + index * per_job for index in indices]
        found += [rank for start in first for rank in range(start, start + per_job)]
    assert found[:world_size] == list(range(world_size))
    assert len(found) < world_size + per_job
    assert len({one.job_name for one in arrays}) == len(arrays)


@given(st.data())
def test_a_shard_knows_the_array_that_it_is_in(data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, 300))
    per_job = data.draw(st.integers(1, 5))
    size = array_size(world_size, data.draw(st.integers(1, world_size)), None, per_job)
    rank = data.draw(st.integers(0, world_size - 1))
    arrays = first_submissions(LAYOUT, world_size, size, per_job)
    (array,) = (a for a in arrays if rank in a.ranks)
    one = shard(rank, world_size, size, per_job)

    assert one.submission(1) == array
    assert one.index in expand_indices(array.indices)
    again = one.submission(3)
    assert expand_indices(again.indices) == [one.index]
    assert rank in again.ranks
    assert len(again.ranks) <= per_job
    for other in again.ranks:
        assert shard(other, world_size, size, per_job).submission(3) == again
        label = parse_label(again.label)
        assert label is not None
        assert label.covers(other, Intent(name="", tasks=1))
    if per_job == 1:
        assert again.job_name == f"ns-run-1-a3-r{rank}"


def test_shards_that_share_a_job_are_submitted_again_in_one_job() -> None:
    one = shard(17, 30, 24, 4)

    assert one.submission(1).job_name == "ns-run-1-a1-c0"
    assert (one.submission(2).job_name, one.submission(2).indices) == ("ns-run-1-a2-r16-19", "4")
    assert list(shard(29, 30, 24, 4).companions) == [28, 29]


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
