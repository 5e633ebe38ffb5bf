"""The answer store: the same fingerprint and request never need a second generation."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from support.merging import save_answers
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results.answers import answers_path, known_answers
from nightshard.results.arrow import MERGED_SCHEMA

pytestmark = pytest.mark.unit


def answers(run_key: str, fingerprint: str = "fp", **texts: str | None) -> pa.Table:
    """Make one answer a keyword; None is an error."""
    rows = [
        {
            "request_id": request_id,
            "text": text,
            "error": "failed" if text is None else None,
            "finished_at": datetime(2026, 1, 2, tzinfo=UTC),
            "rank": 0,
            "attempt": 1,
            "run_key": run_key,
            "fingerprint": fingerprint,
        }
        for request_id, text in texts.items()
    ]
    return pa.Table.from_pylist(rows, schema=MERGED_SCHEMA)


def known(root: UPath | str, fingerprint: str, ids: str, **options: str) -> dict[str, str]:
    table = known_answers(root, fingerprint, ids, **options)
    assert table.schema.equals(MERGED_SCHEMA)
    return dict(
        zip(table.column("request_id").to_pylist(), table.column("text").to_pylist(), strict=True)
    )


def test_stored_answers_are_found_by_fingerprint_and_request(tmp_path: Path) -> None:
    save_answers(str(tmp_path), "fp", "run1", answers("run1", a="1", b="2"))
    assert known(str(tmp_path), "fp", "abc") == {"a": "1", "b": "2"}
    assert known(str(tmp_path), "fp", "b") == {"b": "2"}
    assert known(str(tmp_path), "other", "abc") == {}
    assert known(str(tmp_path), "fp", "") == {}


def test_an_empty_store_knows_nothing(tmp_path: Path) -> None:
    assert known(str(tmp_path / "nowhere"), "fp", "abc") == {}


def test_an_error_is_not_a_known_answer_and_a_later_run_may_mend_it(tmp_path: Path) -> None:
    save_answers(str(tmp_path), "fp", "run1", answers("run1", a=None, b="2"))
    assert known(str(tmp_path), "fp", "ab") == {"b": "2"}
    save_answers(str(tmp_path), "fp", "run2", answers("run2", a="1", b="other"))
    assert known(str(tmp_path), "fp", "ab") == {"a": "1", "b": "2"}


def test_each_request_is_found_at_most_once_and_always_the_same(tmp_path: Path) -> None:
    for run in ("run2", "run1", "run3"):
        save_answers(str(tmp_path), "fp", run, answers(run, a=run, b=run))
    assert known(str(tmp_path), "fp", "ab") == {"a": "run1", "b": "run1"}
    assert known(str(tmp_path), "fp", "ab", but_of="run1") == {"a": "run2", "b": "run2"}


def test_saving_twice_changes_nothing(tmp_path: Path) -> None:
    paths = {save_answers(str(tmp_path), "fp", "run1", answers("run1", a="1")) for _ in range(2)}
    assert len(paths) == 1
    assert [p.name for p in (tmp_path / "answers" / "fp").iterdir()] == ["run1.parquet"]


def test_a_half_written_file_is_not_looked_at(tmp_path: Path) -> None:
    save_answers(str(tmp_path), "fp", "run1", answers("run1", a="1"))
    (tmp_path / "answers" / "fp" / ".run2.parquet.123.tmp").write_bytes(b"PAR1")
    assert known(str(tmp_path), "fp", "a") == {"a": "1"}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = save_answers(str(tmp_path), "fp", "run1", answers("run1", a="1"))
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"run1\.parquet cannot be read .*; remove that file"):
        known_answers(str(tmp_path), "fp", ["a"])


def test_the_store_may_be_any_fsspec_url() -> None:
    root = UPath("memory://nightshard-answer-store")
    save_answers(root, "fp", "run1", answers("run1", a="1"))
    assert known(root, "fp", "ab") == {"a": "1"}


def test_answers_of_another_fingerprint_are_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answers of fingerprint other among those of fp"):
        save_answers(str(tmp_path), "fp", "run1", answers("run1", fingerprint="other", a="1"))


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", ".hidden"])
def test_a_name_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        answers_path(str(tmp_path), "fp", name)
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        answers_path(str(tmp_path), name, "run")
