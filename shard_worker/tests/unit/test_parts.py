"""Parts: whole or left out."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_worker.parts import PartWriter, read_parts
from shard_worker.rows import Answer

pytestmark = pytest.mark.unit

PRINT = "f" * 32
few = settings(max_examples=30, deadline=None)  # each example waits for a real fsync


def answer(number: int, text: str | None = "seven", attempt: int = 1) -> Answer:
    return Answer(
        request_id=f"id{number}",
        benchmark="Sums",
        problem_id=f"p{number}",
        repeat_idx=0,
        text=text,
        output_tokens=1,
        prompt_tokens=2,
        finish_reason="stop" if text is not None else "error",
        seconds=0.5,
        finished_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        error=None if text is not None else "too long",
        rank=0,
        attempt=attempt,
    )


def writer(folder: Path, *, rows: int = 100, seconds: float = 1e9, **more: object) -> PartWriter:
    return PartWriter(folder, PRINT, 1, rows=rows, seconds=seconds, **more)  # type: ignore[arg-type]


def write(folder: Path, *answers: Answer) -> Path:
    """Write one part and return its file."""
    before = set(folder.iterdir())
    parts = writer(folder)
    for one in answers:
        parts.add(one)
    assert parts.flush()
    (made,) = set(folder.iterdir()) - before
    return made


@few
@given(texts=st.lists(st.one_of(st.none(), st.text()), max_size=8), rows=st.integers(1, 7))
def test_what_was_written_is_read_back_whatever_the_part_size(
    texts: list[str | None], rows: int
) -> None:
    answers = [answer(number, text) for number, text in enumerate(texts)]
    with TemporaryDirectory() as name:
        parts = writer(Path(name), rows=rows)
        for one in answers:
            parts.add(one)
            parts.flush_if_due()
        parts.flush()
        assert list(read_parts(Path(name), PRINT).values()) == answers


@few
@given(data=st.data())
def test_a_part_cut_at_any_byte_is_left_out_and_the_others_stay(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, answer(1))
        torn = write(folder, answer(2))
        whole = torn.read_bytes()
        torn.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        assert set(read_parts(folder, PRINT)) == {"id1"}


@few
@given(data=st.data())
def test_a_part_with_any_byte_changed_is_left_out(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        damaged = write(folder, answer(1))
        content = bytearray(damaged.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        damaged.write_bytes(content)
        assert read_parts(folder, PRINT) == {}


def test_answers_of_another_fingerprint_are_never_taken(tmp_path: Path) -> None:
    write(tmp_path, answer(1))
    assert read_parts(tmp_path, "e" * 32) == {}


def test_the_earlier_of_two_answers_to_one_request_stays(tmp_path: Path) -> None:
    write(tmp_path, answer(1, "first", attempt=1))
    write(tmp_path, answer(1, "second", attempt=2), answer(2))
    found = read_parts(tmp_path, PRINT)
    assert found["id1"].text == "first"
    assert set(found) == {"id1", "id2"}


def test_a_part_is_due_by_its_rows_or_by_its_age(tmp_path: Path) -> None:
    now = 0.0
    parts = writer(tmp_path, rows=2, seconds=10, clock=lambda: now)
    assert not parts.flush_if_due()
    parts.add(answer(1))
    now = 9.9
    assert not parts.flush_if_due()
    now = 10.0
    assert parts.flush_if_due()
    parts.add(answer(2))
    now = 11.0
    parts.add(answer(3))
    assert parts.flush_if_due()
    assert len(read_parts(tmp_path, PRINT)) == 3


def test_answers_survive_a_disk_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = writer(tmp_path)
    parts.add(answer(1))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            parts.flush()
    assert list(tmp_path.iterdir()) == []
    parts.flush()
    assert set(read_parts(tmp_path, PRINT)) == {"id1"}
