"""What a shard runs next."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from worker_testing import make_requests

from shard_worker.board import Board
from shard_worker.errors import ConfigError
from shard_worker.feed import SharedRequests
from shard_worker.layout import ShardLayout
from shard_worker.rows import Request, requests_to_bytes

pytestmark = pytest.mark.unit

Make = Callable[[int], SharedRequests]


@pytest.fixture
def requests() -> list[list[Request]]:
    made = make_requests(40)
    return [made[:8], made[8:]]


@pytest.fixture
def feed(tmp_path: Path, requests: list[list[Request]]) -> Make:
    for rank, rows in enumerate(requests):
        layout = ShardLayout(tmp_path, rank, 2)
        layout.inputs.parent.mkdir(exist_ok=True)
        layout.inputs.write_bytes(requests_to_bytes(rows))

    def make(rank: int) -> SharedRequests:
        layout = ShardLayout(tmp_path, rank, 2)
        board = Board(layout, 1)
        return SharedRequests(layout, board, board.open(), requests[rank], ())

    return make


def drain(feed: SharedRequests, fits: Callable[[Request], bool] = lambda _: True) -> list[Request]:
    taken: list[Request] = []
    while more := feed.more(4, 4, fits):
        taken += more
    return taken


def test_its_own_requests_come_first_and_then_those_of_others(
    feed: Make, requests: list[list[Request]]
) -> None:
    mine = feed(0)
    taken = drain(mine)
    assert taken[:8] == requests[0]
    assert {one.request_id for one in taken} == {
        one.request_id for rows in requests for one in rows
    }
    assert mine.expected() == 40
    assert mine.owed() == [*requests[0], *requests[1]]
    other = feed(1)
    assert not other.anything()
    assert other.expected() == 0


def test_what_the_engine_cannot_run_as_well_is_left_to_its_own_shard(
    feed: Make, requests: list[list[Request]]
) -> None:
    long = requests[1][3].request_id
    mine = feed(0)
    taken = {one.request_id for one in drain(mine, lambda one: one.request_id != long)}
    assert long not in taken
    rest = {one.request_id for one in drain(feed(1))}
    assert long in rest
    assert len(taken) + len(rest) == 40


def test_once_all_is_taken_the_shared_disk_is_left_alone(
    feed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = feed(0)
    drain(mine)
    monkeypatch.setattr(Board, "taken", None)
    assert list(mine.more(4, 4, lambda _: True)) == []


def test_an_input_that_is_missing_is_said_in_a_sentence(feed: Make, tmp_path: Path) -> None:
    layout = replace(ShardLayout(tmp_path, 0, 2), rank=1)
    layout.inputs.unlink()
    with pytest.raises(ConfigError, match="need every shard's input; stage the run again"):
        feed(0)
