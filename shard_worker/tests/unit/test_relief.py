"""A shard whose job never begins costs time, not answers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_testing import make_requests, make_spec

from shard_worker import cli
from shard_worker.contract import violations
from shard_worker.layout import ShardLayout
from shard_worker.rows import answers_from_bytes, requests_to_bytes

pytestmark = pytest.mark.unit

SIZE = 3
Work = Callable[[int, int], int]


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    """A run of three shards that share their work."""
    requests = make_requests(30)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "spec.json").write_text(
        json.dumps(make_spec(model, world_size=SIZE, balance="steal"))
    )
    for rank in range(SIZE):
        layout = ShardLayout(tmp_path, rank, SIZE)
        layout.inputs.write_bytes(requests_to_bytes(requests[rank::SIZE]))
    return tmp_path


@pytest.fixture
def work(folder: Path, restored_process: None) -> Work:
    def run(rank: int, attempt: int) -> int:
        where = ["--run-dir", str(folder), "--rank", str(rank), "--world-size", str(SIZE)]
        return cli.main(["run", *where, "--attempt", str(attempt)])

    return run


def manifest(folder: Path, rank: int) -> dict[str, object]:
    return dict(json.loads(ShardLayout(folder, rank, SIZE).manifest.read_text()))


def test_who_ends_last_finishes_the_shards_that_have_not_begun(folder: Path, work: Work) -> None:
    assert work(0, 1) == 0

    rows = {rank: manifest(folder, rank)["rows"] for rank in range(SIZE)}
    assert rows == {0: 30, 1: 0, 2: 0}
    assert violations("manifest", manifest(folder, 2)) == []
    assert answers_from_bytes(ShardLayout(folder, 2, SIZE).output.read_bytes())[0] == []
    assert (folder / "relieved").exists()


def test_a_relieved_shard_that_begins_after_all_ends_at_once(folder: Path, work: Work) -> None:
    work(0, 1)
    before = manifest(folder, 1)

    assert work(1, 1) == 0

    assert manifest(folder, 1) == before
    assert not ShardLayout(folder, 1, SIZE).claim(1).exists()


def test_a_shard_that_has_begun_is_not_relieved(folder: Path, work: Work) -> None:
    other = ShardLayout(folder, 1, SIZE)
    other.folder.mkdir(parents=True)
    other.claim(1).write_text("{}")

    work(0, 1)

    assert not other.manifest.exists()
    assert ShardLayout(folder, 2, SIZE).manifest.exists()
