"""Blocks, claims and the search for a request that crashes the engine."""

import contextlib
import multiprocessing
import os
from math import ceil, log2
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_worker.blocks import Cut, cut
from shard_worker.board import Board, claimed, held_by
from shard_worker.errors import ClaimHeldError, ConfigError
from shard_worker.isolation import Suspects
from shard_worker.layout import ShardLayout

pytestmark = pytest.mark.unit

COSTS = st.lists(st.floats(min_value=1, max_value=1e5), max_size=300)


@given(COSTS)
def test_blocks_cover_every_row_once_and_end_with_single_rows(costs: list[float]) -> None:
    blocks = cut(3, costs)
    rows = [row for block in blocks for row in range(block.start, block.stop)]
    assert rows == list(range(len(costs)))
    assert [block.rows for block in blocks] == sorted((b.rows for b in blocks), reverse=True)
    assert not blocks or blocks[-1].rows == 1
    assert sum(block.cost for block in blocks) == pytest.approx(sum(costs))


@given(
    st.lists(COSTS, min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(1, 9)
)
def test_shards_that_take_turns_in_any_order_take_every_block_once(
    inputs: list[list[float]], random: object, room: int
) -> None:
    whole = Cut({rank: cut(rank, costs) for rank, costs in enumerate(inputs)})
    taken: set[str] = set()
    own_left = {rank: len(blocks) for rank, blocks in whole.blocks.items()}
    while True:
        rank = random.randrange(len(inputs))  # type: ignore[attr-defined]
        block = whole.next_block(rank, taken, room, lambda _: True)
        if block is None:
            break
        assert block.name not in taken
        assert block.rank == rank or not own_left[rank]
        own_left[block.rank] -= 1
        taken.add(block.name)
    assert taken == whole.names()


def test_a_thief_takes_what_fits_from_the_shard_with_most_left() -> None:
    whole = Cut({0: [], 1: cut(1, [1.0] * 32), 2: cut(2, [5.0] * 40)})
    block = whole.next_block(0, set(), 1, lambda _: True)
    assert block is not None
    assert (block.rank, block.rows) == (2, 1)
    assert whole.next_block(0, set(), 1, lambda block: block.rank == 1).rank == 1  # type: ignore[union-attr]


def test_a_shard_without_room_for_others_work_keeps_to_its_own() -> None:
    whole = Cut({0: cut(0, [1.0]), 1: cut(1, [1.0] * 32)})
    own = whole.next_block(0, set(), 0, lambda _: True)
    assert own is not None
    assert own.rank == 0
    assert whole.next_block(0, {own.name}, 0, lambda _: True) is None


def layout(folder: Path, rank: int, size: int = 4) -> ShardLayout:
    return ShardLayout(folder, rank, size)


def _claim_all(folder: Path, rank: int, barrier: object, names: list[str]) -> None:
    board = Board(layout(folder, rank), 1)
    board.open()
    barrier.wait()  # type: ignore[attr-defined]
    for name in names:
        board.claim(name)


def test_processes_that_claim_at_once_never_share_a_block(tmp_path: Path) -> None:
    names = [block.name for block in cut(0, [1.0] * 400)]
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [
        context.Process(target=_claim_all, args=(tmp_path, rank, barrier, names))
        for rank in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    folder = layout(tmp_path, 0).blocks
    held = [held_by(folder, rank) for rank in range(4)]
    assert sum(map(len, held)) == len(names)
    assert set.union(*held) == claimed(folder) == set(names)


def test_the_next_attempt_takes_over_the_claims_and_shuts_the_old_one_out(tmp_path: Path) -> None:
    first = Board(layout(tmp_path, 1), 1)
    assert first.open() == set()
    assert first.claim("00001-0000")
    assert first.claim("00000-0003")
    other = Board(layout(tmp_path, 2), 1)
    other.open()
    assert not other.claim("00000-0003")
    assert other.claim("00002-0000")
    second = Board(layout(tmp_path, 1), 2)
    assert second.open() == {"00001-0000", "00000-0003"}
    with pytest.raises(ClaimHeldError, match="attempt 1 of shard 1 was given up"):
        first.claim("00001-0001")
    assert second.claim("00001-0001")
    assert Board(layout(tmp_path, 1), 2, restarts=1).open() == {
        *("00001-0000", "00000-0003", "00001-0001")
    }


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


@pytest.mark.parametrize("restarts", [0, 1])
@pytest.mark.parametrize("step", range(12))
def test_an_attempt_that_is_killed_while_it_opens_loses_no_claim(
    step: int, restarts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Board(layout(tmp_path, 1), 1)
    first.open()
    assert first.claim("00001-0000")
    left = iter(range(step))

    def until_killed(place: object, name: str) -> None:
        real = getattr(place, name)

        def step_or_die(*args: object, **kwargs: object) -> object:
            if next(left, None) is None:
                raise Killed
            return real(*args, **kwargs)

        patch.setattr(place, name, step_or_die)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("mkdir", "glob", "unlink", "replace", "hardlink_to"):
            until_killed(Path, name)
        for name in ("open", "fsync"):
            until_killed(os, name)
        Board(layout(tmp_path, 1), 2).open()
    third = Board(layout(tmp_path, 1), 3 - restarts, restarts)
    assert third.open() == {"00001-0000"}
    with pytest.raises(ClaimHeldError):
        first.claim("00001-0001")


def test_a_claim_whose_reply_was_lost_is_ours(tmp_path: Path) -> None:
    board = Board(layout(tmp_path, 0), 1)
    board.open()
    assert board.claim("00000-0000")
    assert board.claim("00000-0000")


def test_a_file_system_without_hard_links_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(ConfigError, match=r"without hard links.* balance: static"):
        Board(layout(tmp_path, 0), 1).open()


@given(st.integers(1, 200), st.data())
def test_guilty_requests_are_found_and_the_others_answered(count: int, data: st.DataObject) -> None:
    guilty = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    suspects: Suspects[int] = Suspects()
    waiting, crashes = list(range(count)), 0
    answered: list[int] = []
    found: list[int] = []
    while waiting or suspects:
        running = suspects.next_group() if suspects else waiting
        if not suspects:
            waiting = []
        if guilty & set(running):
            crashes += 1
            finished = data.draw(st.sets(st.sampled_from(running), max_size=2)) - guilty
            answered += finished
            unfinished = [one for one in running if one not in finished]
            found += suspects.crashed(unfinished, proven=bool(answered))
        else:
            answered += running
            if suspects:
                suspects.survived()
    assert sorted(found) == sorted(guilty)
    assert sorted(answered) == sorted(set(range(count)) - guilty)
    assert crashes <= len(guilty) * (ceil(log2(count)) + 4)
