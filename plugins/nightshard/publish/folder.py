"""A run as a folder that can be put anywhere: the Hub, a web server, a colleague's disk."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from nightshard.benchmarks import registry
from nightshard.core.errors import UserError
from nightshard.publish.card import folder_of, render
from nightshard.results.arrow import REQUEST_SCHEMA, VERDICT_SCHEMA
from nightshard.results.records import RunRecord
from nightshard.results.store import RunStore, read_batches, read_table, write_json

ROWS = 1000
_ANSWER = ("request_id", "problem_id", "repeat_idx", "text", "finish_reason")
_ANSWER_TOO = ("prompt_tokens", "output_tokens", "error")
_VERDICT = ("correct", "extracted", "reason", "credit")


def write_folder(store: RunStore, run: RunRecord, target: Path) -> list[str]:
    """Write a run's answers with their verdicts, its scores and its card, whole or not at all.

    Questions go along but for benchmarks whose owners forbid it; gold answers never do.

    Args:
        store: the run's artefacts.
        run: as the database has it.
        target: a folder that does not exist yet, or one that an earlier call wrote.

    Returns:
        Benchmarks whose questions were left out.

    Raises:
        UserError: the run is not scored, its artefacts are gone, or the folder holds other things.
    """
    if not run.metrics:
        raise UserError(f"Run {run.run_key} has no scores yet; publish it once it is scored.")
    if target.exists() and any(target.iterdir()) and not (target / "run.json").is_file():
        raise UserError(f"{target} holds other files; name a new folder.")
    names = list(dict.fromkeys(one.benchmark for one in run.metrics))
    gated = [name for name in names if _gated(name)]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".publish-") as made:
        folder = Path(made) / "run"
        folder.mkdir()
        _write_answers(store, folder, names, gated)
        metrics = [dataclasses.asdict(one) for one in run.metrics]
        write_json(UPath(folder / "metrics.json"), metrics)
        content = {
            "run_key": run.run_key,
            "model": dataclasses.asdict(run.model),
            "params": run.params,
            "fingerprint": run.fingerprint,
            "fingerprint_content": run.fingerprint_content,
        }
        write_json(UPath(folder / "run.json"), content)
        (folder / "README.md").write_text(render(run, gated=gated), "utf-8")
        if target.exists():
            shutil.rmtree(target)
        folder.replace(target)
    return gated


def _gated(name: str) -> bool:
    """Whether a benchmark's questions may not be shown; one that is not known here may not."""
    try:
        return registry.info(name).gated
    except UserError:
        return True


def _write_answers(store: RunStore, folder: Path, names: list[str], gated: list[str]) -> None:
    requests = read_table(store.requests, ["request_id", "messages"])
    verdicts = read_table(store.verdicts)
    columns = ["benchmark", *_ANSWER, *_ANSWER_TOO]
    with contextlib.ExitStack() as stack:
        writers = {name: _writer(stack, folder, name) for name in names}
        for batch in read_batches(store.answers, columns, ROWS):
            for name in batch.column("benchmark").unique().to_pylist():
                if name in writers:
                    rows = batch.filter(pc.field("benchmark") == name)
                    shown = None if name in gated else requests
                    table = pa.table(dict(_columns(rows, shown, verdicts)), schema=_SCHEMA)
                    writers[name].write_table(table)


def _writer(stack: contextlib.ExitStack, folder: Path, name: str) -> pq.ParquetWriter:
    path = folder / "data" / folder_of(name) / "answers.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return stack.enter_context(pq.ParquetWriter(path, _SCHEMA, compression="zstd"))


def _columns(
    rows: pa.RecordBatch, requests: pa.Table | None, verdicts: pa.Table
) -> "Iterator[tuple[str, pa.Array[Any]]]":
    for name in (*_ANSWER, *_ANSWER_TOO):
        yield name, rows.column(name)
    ids = rows.column("request_id")
    yield "messages", _looked_up(requests, "messages", ids, REQUEST_SCHEMA)
    for name in _VERDICT:
        yield name, _looked_up(verdicts, name, ids, VERDICT_SCHEMA)


def _looked_up(
    table: pa.Table | None, name: str, ids: "pa.Array[Any]", schema: pa.Schema
) -> "pa.Array[Any]":
    """Return a column's values for some requests; null where the table does not have them."""
    kind = schema.field(name).type
    found: pa.Array[Any] = pa.nulls(len(ids), kind)
    if table is not None and name in table.column_names:
        places = pc.index_in(ids, value_set=table.column("request_id").combine_chunks())
        found = table.column(name).combine_chunks().take(places).cast(kind)
    return found


_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("problem_id", pa.string()),
        ("repeat_idx", pa.int32()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("error", pa.string()),
        ("messages", REQUEST_SCHEMA.field("messages").type),
        *((name, VERDICT_SCHEMA.field(name).type) for name in _VERDICT),
    ]
)
