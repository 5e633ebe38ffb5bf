"""Checkpoints are found once they are whole, in the interval in which they appeared."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from nightshard.checkpoints.config import FolderSource, TableSource
from nightshard.checkpoints.folder import PROGRAM, Folder, read_folders
from nightshard.checkpoints.found import (
    Found,
    Interval,
    SourceError,
    evaluation,
    evaluation_run_id,
    in_order,
)
from nightshard.checkpoints.hub import lacking
from nightshard.checkpoints.table import Table, read_rows

pytestmark = pytest.mark.unit

NIGHT = Interval(datetime(2026, 1, 10, tzinfo=UTC), datetime(2026, 1, 11, tzinfo=UTC))
INSIDE = datetime(2026, 1, 10, 12, tzinfo=UTC)


def checkpoint(folder: Path, at: datetime = INSIDE, *, parts: int = 1) -> Path:
    """Write the files of a whole checkpoint, all of them as old as is asked."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    names = [f"model-{n:05}-of-{parts:05}.safetensors" for n in range(1, parts + 1)]
    for name in names:
        (folder / name).write_bytes(b"weights")
    if parts > 1:
        index = {"weight_map": {f"w{n}": name for n, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for file in folder.iterdir():
        os.utime(file, (at.timestamp(), at.timestamp()))
    return folder


def printed_for(glob: str, marker: str = "") -> str:
    return subprocess.run(
        [sys.executable, "-", glob, marker],
        input=PROGRAM,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def look(pattern: str, **config: Any) -> Any:
    """Run the login node's program here."""
    source = FolderSource(kind="folder", glob=pattern, **{"stable_minutes": 0, **config})

    async def ask(glob: str, marker: str) -> str:
        return printed_for(glob, marker)

    return Folder(source, ask, asyncio.run).find(NIGHT)


def test_whole_folders_of_the_interval_are_found_the_earliest_first(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run" / "checkpoint-2", INSIDE)
    checkpoint(tmp_path / "run" / "checkpoint-1", INSIDE - timedelta(hours=1), parts=3)
    checkpoint(tmp_path / "run" / "checkpoint-0", NIGHT.start - timedelta(seconds=1))
    checkpoint(tmp_path / "run" / "checkpoint-3", NIGHT.end)
    report = look(f"{tmp_path}/*/checkpoint-*")
    assert [Path(one.model).name for one in report.found] == ["checkpoint-1", "checkpoint-2"]
    assert report.remarks == ()


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("config.json", "it has no config.json"),
        ("tokenizer.json", "it has no tokenizer"),
        ("model-00002-of-00003.safetensors", "model-00002-of-00003.safetensors is not there yet"),
    ],
)
def test_what_is_not_whole_is_left_out_and_named(tmp_path: Path, gone: str, says: str) -> None:
    folder = checkpoint(tmp_path / "checkpoint-1", parts=3)
    (folder / gone).unlink()
    report = look(f"{tmp_path}/*")
    assert report.found == ()
    assert report.remarks == (f"{folder} is left out: {says}.",)


def test_a_file_that_is_still_empty_is_not_there_yet(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint-1", parts=2)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert look(f"{tmp_path}/*").found == ()


def test_an_index_that_is_half_written_is_not_whole(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint-1", parts=2)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a"')
    (remark,) = look(f"{tmp_path}/*").remarks
    assert "model.safetensors.index.json is not whole yet" in remark


def test_with_a_marker_the_marker_alone_counts(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "whatever.pt").write_bytes(b"weights")
    assert look(f"{tmp_path}/*", marker="DONE").found == ()
    (folder / "DONE").touch()
    os.utime(folder / "DONE", (INSIDE.timestamp(),) * 2)
    assert [one.appeared for one in look(f"{tmp_path}/*", marker="DONE").found] == [INSIDE]


def test_one_that_was_written_shortly_before_the_end_belongs_to_the_next_interval(
    tmp_path: Path,
) -> None:
    checkpoint(tmp_path / "checkpoint-1", NIGHT.end - timedelta(minutes=5))
    printed = printed_for(f"{tmp_path}/*")
    config = FolderSource(kind="folder", glob="/x", stable_minutes=10)
    following = Interval(NIGHT.end, NIGHT.end + timedelta(days=1))
    assert read_folders(printed, config, NIGHT).found == ()
    assert len(read_folders(printed, config, following).found) == 1


def test_other_weights_under_the_same_name_are_another_version(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint-1")
    (before,) = look(f"{tmp_path}/*").found
    assert look(f"{tmp_path}/*").found == (before,)
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(b"longer weights")
    os.utime(weights, (INSIDE.timestamp(),) * 2)
    (after,) = look(f"{tmp_path}/*").found
    assert after.version != before.version


def test_an_answer_that_was_cut_is_no_quiet_night() -> None:
    config = FolderSource(kind="folder", glob="/x")
    for printed in ("", '{"folder": "/x/1", "newest": 1, "version": "a", "lacks": null}\n'):
        with pytest.raises(SourceError, match="cut short"):
            read_folders(printed, config, NIGHT)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"config.json", "tokenizer.json", "model.safetensors"}, None),
        ({"config.json", "tokenizer.model", "pytorch_model.bin"}, None),
        ({"tokenizer.json", "model.safetensors"}, "it has no config.json"),
        ({"config.json", "model.safetensors"}, "it has no tokenizer"),
        ({"config.json", "tokenizer.json", "README.md"}, "it has no weights"),
        (
            {"config.json", "tokenizer.json", "model-00001-of-00002.safetensors"},
            "model-00002-of-00002.safetensors is not there yet",
        ),
    ],
)
def test_a_revision_on_the_hub_is_whole_or_says_what_it_lacks(
    files: set[str], says: str | None
) -> None:
    assert lacking(files) == says


ROWS = [
    {"model": "org/a", "revision": "step-1", "appeared_at": "2026-01-10T03:00:00Z", "limit": "8"},
    {"model": "org/b", "revision": "", "appeared_at": "2026-01-10 02:00", "tasks": '["AIME24"]'},
    {"model": "org/c", "revision": "", "appeared_at": "2026-01-12"},
]


def test_rows_of_the_interval_are_found_with_their_own_parameters(tmp_path: Path) -> None:
    first, second = read_rows(ROWS, "rows", NIGHT).found
    assert (first.model, first.revision, first.params) == ("org/b", None, {"tasks": ["AIME24"]})
    assert (second.model, second.revision, second.params) == ("org/a", "step-1", {"limit": 8})


def test_a_csv_file_and_a_table_hold_the_same(tmp_path: Path) -> None:
    lines = ["model,revision,appeared_at", *(",".join(list(row.values())[:3]) for row in ROWS)]
    file = tmp_path / "checkpoints.csv"
    file.write_text("\n".join(lines) + "\n")
    url = f"sqlite:///{tmp_path / 'training.db'}"
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("create table checkpoints (model, revision, appeared_at)"))
        for row in ROWS:
            connection.execute(
                sa.text("insert into checkpoints values (:model, :revision, :appeared_at)"), row
            )
    from_file = Table(TableSource(kind="table", file=file)).find(NIGHT)
    from_table = Table(TableSource(kind="table", url=url, table="checkpoints")).find(NIGHT)
    assert from_file == from_table
    assert [one.model for one in from_file.found] == ["org/b", "org/a"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"model": "org/a"}, "row 1: model or appeared_at is missing"),
        ({"model": "", "appeared_at": "2026-01-10"}, "row 1: model or appeared_at is missing"),
        ({"model": "org/a", "appeared_at": "soon"}, "row 1: 'soon' is no time such as"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: dict[str, str], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        read_rows([row], "rows", NIGHT)


def test_a_table_that_is_not_there_is_no_quiet_night(tmp_path: Path) -> None:
    gone = TableSource(kind="table", file=tmp_path / "gone.csv")
    with pytest.raises(SourceError, match="No such file"):
        Table(gone).find(NIGHT)
    no_table = TableSource(kind="table", url=f"sqlite:///{tmp_path / 'empty.db'}", table="gone")
    with pytest.raises(SourceError, match="no such table: gone"):
        Table(no_table).find(NIGHT)


instants = st.integers(1_735_700_000, 1_798_700_000).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)


@given(st.lists(instants, min_size=1, max_size=40), instants, st.integers(1, 30))
def test_intervals_side_by_side_find_each_checkpoint_once(
    appeared: list[datetime], start: datetime, days: int
) -> None:
    rows = [{"model": f"org/{n}", "appeared_at": at.isoformat()} for n, at in enumerate(appeared)]
    day = timedelta(days=1)
    nights = [Interval(start + n * day, start + (n + 1) * day) for n in range(days)]
    whole = Interval(start, start + days * day)
    by_night = [one for night in nights for one in read_rows(rows, "rows", night).found]
    assert len(by_night) == len({one.model for one in by_night})
    assert {one.model for one in by_night} == {
        one.model for one in read_rows(rows, "rows", whole).found
    }


def found(model: str = "/work/run7/checkpoint-500", **changes: Any) -> Found:
    return Found(**{"model": model, "appeared": INSIDE, "version": "v1", **changes})


def test_whoever_asks_for_a_checkpoint_asks_for_the_same_run() -> None:
    first, second = (
        evaluation_run_id(found(), evaluation(found(), {"cluster": "local"}, asked_by))
        for asked_by in ("nightly/scheduled__1", "nightly/backfill__1")
    )
    assert first == second
    assert first.startswith("checkpoint__run7-checkpoint-500-")


def test_other_weights_or_other_benchmarks_are_another_run() -> None:
    conf = evaluation(found(), {"tasks": ["AIME24"]}, "x")
    others = {
        evaluation_run_id(found(), conf),
        evaluation_run_id(found(version="v2"), conf),
        evaluation_run_id(found(), {**conf, "tasks": ["AIME25"]}),
    }
    assert len(others) == 3


def test_a_checkpoints_own_parameters_go_before_those_of_its_source() -> None:
    conf = evaluation(found(params={"limit": 8}), {"limit": 2, "tasks": ["AIME24"]}, "x/y")
    assert conf == {
        "model": "/work/run7/checkpoint-500",
        "revision": None,
        "limit": 8,
        "tasks": ["AIME24"],
        "asked_by": "x/y",
    }


def test_of_one_night_the_higher_priority_goes_first_and_then_the_earlier_one() -> None:
    late, early = found("/b", appeared=INSIDE + timedelta(hours=1)), found("/a")
    assert [one.model for _, one in in_order([(0, late), (0, early), (5, late)])] == [
        *("/b", "/a", "/b")
    ]


@given(
    st.builds(
        found,
        st.text(min_size=1),
        appeared=instants,
        version=st.text(),
        revision=st.none() | st.text(),
        params=st.dictionaries(st.text(), st.integers() | st.text()),
    )
)
def test_a_checkpoint_survives_the_way_between_two_tasks(one: Found) -> None:
    assert Found.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert all(c.isalnum() or c in "_-" for c in evaluation_run_id(one, {}))
