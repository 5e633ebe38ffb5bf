"""The log's progress sentence can be read back by the terminal's bars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.story import ShardProgress, progress_sentence, read_progress

pytestmark = pytest.mark.unit

counts = st.integers(min_value=0, max_value=10**9)
words = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1)


@given(words, words, counts, counts, st.none() | counts)
def test_what_is_written_is_read_back(
    phase: str, node: str, done: int, total: int, rate: int | None
) -> None:
    progress = ShardProgress(phase, node, done, total, rate)
    assert read_progress(f"[info] {progress_sentence(progress)}.") == progress


def test_a_person_can_read_it() -> None:
    sentence = progress_sentence(ShardProgress("generating", "node2", 340, 1516, 1250))
    assert sentence == "generating on node2: 340 of 1,516 answers, 1,250 tok/s"


def test_other_lines_hold_no_progress() -> None:
    assert read_progress("queued: Resources") is None
