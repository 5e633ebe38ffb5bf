"""A merge gives exactly one answer for every request, or refuses with what is wrong."""

import dataclasses
import hashlib
import io
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.merging import merge_shards
from upath import UPath

from nightshard.core.errors import IncompleteRunError
from nightshard.core.settings import Settings
from nightshard.results.arrow import ANSWER_SCHEMA, MERGED_SCHEMA
from nightshard.results.merge import ShardOutput, merged_chunks, write_merged
from nightshard.results.spill import Spill

pytestmark = pytest.mark.unit

SCHEMA = json.loads(
    (Settings.from_env({}).worker_source / "shard_worker/schemas/manifest.schema.json").read_text()
)


def answer(request_id: str, rank: int = 0, **change: Any) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "benchmark": "B",
        "problem_id": request_id,
        "repeat_idx": 0,
        "text": f"text of {request_id}",
        "output_tokens": 3,
        "prompt_tokens": 5,
        "finish_reason": "stop",
        "seconds": 0.5,
        "finished_at": datetime(2026, 1, 2, tzinfo=UTC),
        "error": None,
        "rank": rank,
        "attempt": 1,
    } | change


def shard(
    rank: int, size: int, rows: list[dict[str, Any]], change: dict[str, Any] | None = None
) -> ShardOutput:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=ANSWER_SCHEMA), file)
    data = file.getvalue()
    manifest = {
        "contract_version": 2,
        "run_key": "run",
        "fingerprint": "fp",
        "rank": rank,
        "world_size": size,
        "attempt": 1,
        "rows": len(rows),
        "errors": sum(row["error"] is not None for row in rows),
        "output_file": f"shard-{rank:05d}-of-{size:05d}.parquet",
        "sha256": hashlib.sha256(data).hexdigest(),
        "prompt_tokens": 5 * len(rows),
        "output_tokens": 3 * len(rows),
        "timings": {"import_s": 1.0, "load_s": 1.0, "generate_s": 1.0, "total_s": 3.0},
        "gpu": None,
        "node": "node1",
        "slurm": dict.fromkeys(("job_id", "array_job_id", "array_task_id", "cluster")),
        "versions": {"vllm": "0.32.0"},
        "started_at": "2026-01-02T00:00:00+00:00",
        "finished_at": "2026-01-02T00:00:03+00:00",
    } | (change or {})
    return ShardOutput(data, manifest)


def plan(owners: dict[str, int | None]) -> pa.Table:
    return pa.table(
        {"request_id": list(owners), "rank": pa.array(list(owners.values()), pa.int32())}
    )


def merge(
    expected: pa.Table, shards: list[ShardOutput], reused: pa.Table | None = None
) -> pa.Table:
    return merge_shards(
        expected,
        shards,
        run_key="run",
        fingerprint="fp",
        manifest_schema=SCHEMA,
        reused=reused,
    )


def earlier(ids: list[str], fingerprint: str = "fp") -> pa.Table:
    rows = [answer(i) | {"run_key": "before", "fingerprint": fingerprint} for i in ids]
    return pa.Table.from_pylist(rows, schema=MERGED_SCHEMA)


EXPECTED = plan({"a": 0, "b": 1, "c": 0, "d": 1})


def two_shards(change: dict[str, Any] | None = None) -> list[ShardOutput]:
    return [
        shard(0, 2, [answer("c"), answer("a")]),
        shard(1, 2, [answer("b", 1), answer("d", 1)], change),
    ]


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, int | None], int]:
    size = draw(st.integers(1, 4))
    owner = st.one_of(st.none(), st.integers(0, size - 1))
    return draw(st.dictionaries(st.text("abcd", min_size=1), owner, min_size=1)), size


@given(runs(), st.randoms())
def test_a_complete_run_merges_in_request_order_whatever_the_order_of_the_outputs(
    run: tuple[dict[str, int | None], int], chance: random.Random
) -> None:
    owners, size = run
    shards = []
    for rank in range(size):
        rows = [answer(i, rank) for i, owner in owners.items() if owner == rank]
        shards.append(shard(rank, size, chance.sample(rows, len(rows))))
    reused = earlier([i for i, owner in owners.items() if owner is None])
    merged = merge(plan(owners), chance.sample(shards, len(shards)), reused)
    assert merged.schema.equals(MERGED_SCHEMA)
    assert merged.column("request_id").to_pylist() == list(owners)
    assert merged.column("text").to_pylist() == [f"text of {i}" for i in owners]
    assert merged.column("run_key").to_pylist() == [
        "before" if owner is None else "run" for owner in owners.values()
    ]


@given(runs(), st.data())
def test_any_single_missing_answer_is_refused_with_its_id_and_shard(
    run: tuple[dict[str, int | None], int], data: st.DataObject
) -> None:
    owners, size = run
    gone = data.draw(st.sampled_from(sorted(owners)))
    shards = [
        shard(rank, size, [answer(i, rank) for i, o in owners.items() if o == rank and i != gone])
        for rank in range(size)
    ]
    reused = earlier([i for i, owner in owners.items() if owner is None and i != gone])
    owner = owners[gone]
    owed = "the answers of earlier runs" if owner is None else f"shard {owner + 1}"
    with pytest.raises(IncompleteRunError) as caught:
        merge(plan(owners), shards, reused)
    assert f"1 of {len(owners)} answer" in str(caught.value)
    assert f"missing ({gone}), planned for {owed};" in str(caught.value)


def test_a_shard_may_have_answered_what_was_planned_for_another() -> None:
    expected = plan({"a": 0, "b": 1, "c": 1})
    merged = merge(
        expected, [shard(0, 2, [answer("a"), answer("b"), answer("c")]), shard(1, 2, [])]
    )
    assert merged.column("request_id").to_pylist() == ["a", "b", "c"]


def test_a_missing_shard_is_named_with_the_count_and_first_ids_of_its_answers() -> None:
    owners: dict[str, int | None] = {f"r{i}": i % 2 for i in range(10)}
    half = shard(0, 2, [answer(i) for i, owner in owners.items() if owner == 0])
    with pytest.raises(
        IncompleteRunError,
        match=r"5 of 10 answers are missing \(r1, r3, r5, …\), planned for shard 2; a missing "
        "answer is not a wrong one",
    ):
        merge(plan(owners), [half])


def test_answers_of_another_run_are_refused() -> None:
    shards = [*two_shards()[:1], shard(1, 2, [answer(i, 1) for i in "bdx"])]
    with pytest.raises(IncompleteRunError, match=r"1 answer is not to a request of this run \(x\)"):
        merge(EXPECTED, shards)


def test_an_answer_given_by_two_shards_is_refused() -> None:
    shards = [*two_shards()[:1], shard(1, 2, [answer(i, 1) for i in "bda"])]
    with pytest.raises(IncompleteRunError, match=r"answered more than once \(a\) by shard 1, sh"):
        merge(EXPECTED, shards)


def test_an_answer_that_exists_twice_in_one_output_is_refused() -> None:
    shards = [*two_shards()[:1], shard(1, 2, [answer(i, 1) for i in "bdb"])]
    with pytest.raises(IncompleteRunError, match=r"more than once \(b\) by shard 2;"):
        merge(EXPECTED, shards)


def test_an_answer_both_generated_and_reused_is_refused() -> None:
    with pytest.raises(IncompleteRunError, match=r"more than once \(a\)"):
        merge(EXPECTED, two_shards(), earlier(["a"]))


def test_an_error_row_is_an_answer_that_came() -> None:
    failed = answer("d", 1, text=None, finish_reason="error", error="the prompt is too long")
    merged = merge(EXPECTED, [*two_shards()[:1], shard(1, 2, [answer("b", 1), failed])])
    assert merged.column("error").to_pylist() == [None, None, None, "the prompt is too long"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": "other"}, "Shard 2 of 2 has the fingerprint other and this run fp"),
        ({"run_key": "old"}, "Shard 2 of 2 has the run_key old and this run run"),
        ({"contract_version": 3}, "does not follow the contract: contract_version"),
        ({"surprise": 1}, "does not follow the contract: .*surprise"),
        ({"rows": 3}, "Shard 2 of 2 holds 2 rows and its manifest says 3"),
        ({"errors": 1}, "Shard 2 of 2 holds 0 errors and its manifest says 1"),
        ({"sha256": "0" * 64}, "the checksum differs"),
        ({"rank": 0}, "Shard 1 of 2 is there twice"),
        ({"rank": 2}, "Shard 3 of 2's manifest names shard-00001-of-00002.parquet"),
        ({"output_file": "shard-00001-of-00004.parquet"}, "names shard-00001-of-00004.parquet"),
        ({"world_size": 4}, "Outputs of 2 shards and of 4 shards lie side by side"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(IncompleteRunError, match=sentence):
        merge(EXPECTED, two_shards(change))


def test_reused_answers_of_another_fingerprint_are_refused() -> None:
    with pytest.raises(IncompleteRunError, match="two fingerprints are never mixed"):
        merge(EXPECTED, two_shards(), earlier(["a"], fingerprint="older"))


def test_a_run_whose_every_answer_exists_needs_no_shard() -> None:
    merged = merge(plan({"b": None, "a": None}), [], earlier(["a", "b"]))
    assert merged.column("request_id").to_pylist() == ["b", "a"]


def test_outputs_may_lie_in_files(tmp_path: Path) -> None:
    files = []
    for number, output in enumerate(two_shards()):
        path = tmp_path / f"{number}.parquet"
        assert isinstance(output.output, bytes)
        path.write_bytes(output.output)
        files.append(dataclasses.replace(output, output=path))
    assert merge(EXPECTED, files).num_rows == 4
    path.unlink()
    with pytest.raises(IncompleteRunError, match="has a manifest but no shard-00001-of-00002"):
        merge(EXPECTED, files)


def test_a_file_that_is_no_output_is_refused() -> None:
    for data, why in ((b"not parquet", "is not an output"), (_other_columns(), "is not an output")):
        strange = shard(1, 2, [], {"sha256": hashlib.sha256(data).hexdigest()})
        with pytest.raises(IncompleteRunError, match=why):
            merge(EXPECTED, [*two_shards()[:1], dataclasses.replace(strange, output=data)])


def _other_columns() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"request_id": ["b"]}), file)
    return file.getvalue()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 20), st.randoms())
def test_rows_come_back_from_disk_in_the_wanted_order(
    sizes: list[int], window: int, rng: random.Random
) -> None:
    places = list(range(sum(sizes)))
    rng.shuffle(places)
    schema = pa.schema([("name", pa.string())])
    start = 0
    with Spill(schema, len(places), window) as spill:
        for size in sizes:
            part = places[start : start + size]
            start += size
            table = pa.table({"name": [f"row {place}" for place in part]}, schema=schema)
            spill.add(table, np.array(part, dtype=np.int64))
        chunks = list(spill.windows())
    assert all(chunk.num_rows == window for chunk in chunks[:-1])
    names = [name for chunk in chunks for name in chunk.column("name").to_pylist()]
    assert names == [f"row {place}" for place in range(sum(sizes))]


def test_a_merge_is_written_as_it_is_returned(tmp_path: Path) -> None:
    path = UPath(tmp_path / "merged.parquet")
    options = {"run_key": "run", "fingerprint": "fp", "manifest_schema": SCHEMA}
    rows = write_merged(path, merged_chunks(EXPECTED, two_shards(), **options))
    assert rows == 4
    assert pq.read_table(path).equals(merge(EXPECTED, two_shards()))


def test_a_merge_that_is_refused_writes_nothing(tmp_path: Path) -> None:
    path = UPath(tmp_path / "merged.parquet")
    options = {"run_key": "run", "fingerprint": "fp", "manifest_schema": SCHEMA}
    with pytest.raises(IncompleteRunError):
        write_merged(path, merged_chunks(EXPECTED, two_shards()[:1], **options))
    assert list(tmp_path.iterdir()) == []
