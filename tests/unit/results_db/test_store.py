"""The folder in which the tasks of a run hand their files on."""

import os

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results import store
from nightshard.results.records import ShardKey

pytestmark = pytest.mark.unit


@pytest.fixture(params=["folder", "file-url", "memory"])
def root(request, tmp_path):
    if request.param == "memory":
        yield UPath(f"memory://{tmp_path.name}")
        UPath(f"memory://{tmp_path.name}").fs.store.clear()
    else:
        yield UPath(tmp_path if request.param == "folder" else f"file://{tmp_path}")


def test_bytes_json_and_tables_come_back_from_any_file_system(root):
    run = store.RunStore(root, "run-1")
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    store.write_table(run.requests, table)
    store.write_json(run.spec, {"a": [1, "ü"]})
    store.write_bytes(run.input(3, 8), b"\0\1")
    assert store.read_table(run.requests).equals(table)
    assert store.read_table(run.requests, ["b"]).column_names == ["b"]
    assert store.read_json(run.spec) == {"a": [1, "ü"]}
    assert run.input(3, 8).read_bytes() == b"\0\1"
    assert run.input(3, 8).name == "shard-00003-of-00008.parquet"
    assert run.manifest(3, 8).name == "shard-00003-of-00008.manifest.json"


def test_runs_do_not_share_files_and_answers_has_its_place_free(root):
    one, two = store.RunStore(root, "a"), store.RunStore(str(root), "b")
    store.write_json(one.scorecard, 1)
    store.write_json(two.scorecard, 2)
    assert store.read_json(one.scorecard) == 1
    assert not (root / "answers").exists()


def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(root):
    path = store.RunStore(root, "a").spec
    store.write_bytes(path, b"old")

    def break_off() -> None:
        with store.atomic_file(path) as file:
            file.write(b"half")
            raise RuntimeError("broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        break_off()
    assert path.read_bytes() == b"old"
    assert [found.name for found in path.parent.iterdir()] == ["spec.json"]


def test_a_written_file_has_the_permissions_of_any_other_file(tmp_path):
    mask = os.umask(0o027)
    try:
        store.write_bytes(UPath(tmp_path / "a"), b"")
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", "a b", "-rf", "a\n"])
def test_a_run_key_that_could_leave_the_store_is_refused(tmp_path, key):
    with pytest.raises(UserError, match="cannot be a run key"):
        store.RunStore(str(tmp_path), key)


def test_missing_and_damaged_files_are_named(root):
    run = store.RunStore(root, "a")
    with pytest.raises(UserError, match=r"spec\.json is not there"):
        store.read_json(run.spec)
    store.write_bytes(run.spec, b"{")
    with pytest.raises(UserError, match=r"spec\.json is damaged"):
        store.read_json(run.spec)
    store.write_bytes(run.requests, b"no parquet")
    with pytest.raises(UserError, match=r"requests\.parquet is damaged"):
        store.read_table(run.requests)
    store.write_table(run.requests, pa.table({"a": [1]}))
    with pytest.raises(UserError, match="no column 'b'"):
        store.read_table(run.requests, ["b"])


def test_answers_are_counted_by_the_attempt_that_gave_them(root):
    path = store.RunStore(root, "a").answers
    columns = {"run_key": [*"rsr"], "rank": [0, 1, 0], "attempt": [1, 2, 1], "text": [*"xyz"]}
    store.write_table(path, pa.table(columns))
    assert store.read_shard_keys(str(path)) == {ShardKey("r", 0, 1): 2, ShardKey("s", 1, 2): 1}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=json_values)
def test_any_json_value_comes_back(value):
    path = UPath("memory://any/value.json")
    store.write_json(path, value)
    assert store.read_json(path) == value


def test_a_number_that_json_cannot_say_is_refused(root):
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(root / "a.json", float("nan"))
