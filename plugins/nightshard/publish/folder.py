"""A run as a folder that can be put anywhere: the Hub, a web server, a colleague's disk."""

import contextlib
import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from nightshard.benchmarks import registry
from nightshard.core.errors import UserError
from nightshard.publish.card import folder_of, render
from nightshard.publish.shareable import shareable
from nightshard.results.arrow import REQUEST_SCHEMA, VERDICT_SCHEMA
from nightshard.results.records import RunRecord
from nightshard.results.store import RunStore, read_batches, read_table, write_json

ROWS = 1000
_ANSWER = ("request_id", "problem_id", "repeat_idx", "text", "finish_reason")
_ANSWER_TOO = ("prompt_tokens", "output_tokens", "error")
_VERDICT = ("correct", "extracted", "reason", "credit")


def write_folder(store: RunStore, run: RunRecord, target: Path) -> list[str]:
    """Write a run's answers with their verdicts, its scores and its card, whole or not at all.

    Questions go along but for benchmarks whose owners forbid it; gold answers never do, and neither
    do paths and addresses of the group's own machines.

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
    run = shareable(run)
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
    requests = _whole(read_table(store.requests, ["request_id", "messages"]), REQUEST_SCHEMA)
    verdicts = _whole(read_table(store.verdicts), VERDICT_SCHEMA)
    nothing = requests.slice(0, 0)
    columns = ["benchmark", *_ANSWER, *_ANSWER_TOO]
    with contextlib.ExitStack() as stack:
        writers = {name: _writer(stack, folder, name) for name in names}
        for batch in read_batches(store.answers, columns, ROWS):
            for name in batch.column("benchmark").unique().to_pylist():
                if name in writers:
                    rows = batch.filter(pc.field("benchmark") == name)
                    shown = nothing if name in gated else requests
                    writers[name].write_table(_joined(rows, shown, verdicts))


def _writer(stack: contextlib.ExitStack, folder: Path, name: str) -> pq.ParquetWriter:
    path = folder / "data" / folder_of(name) / "answers.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return stack.enter_context(pq.ParquetWriter(path, _SCHEMA, compression="zstd"))


def _whole(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table in one piece, with null for the columns that its release did not know."""
    return pa.concat_tables(
        [schema.empty_table(), table], promote_options="default"
    ).combine_chunks()


def _joined(rows: pa.RecordBatch, requests: pa.Table, verdicts: pa.Table) -> pa.Table:
    """Put question and verdict beside answers; null where a table does not have the request."""
    ids = rows.column("request_id")
    columns: dict[str, Any] = {name: rows.column(name) for name in (*_ANSWER, *_ANSWER_TOO)}
    for table, names in ((requests, ("messages",)), (verdicts, _VERDICT)):
        places = pc.index_in(ids, value_set=table.column("request_id"))
        columns |= {name: table.column(name).take(places) for name in names}
    return pa.table(columns, schema=_SCHEMA)


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
