"""What the merge and the answer store take and give as files, as tables."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from upath import UPath

from nightshard.core.requests import Request
from nightshard.results import answers, merge
from nightshard.results.arrow import MERGED_SCHEMA
from nightshard.results.merge import ShardOutput
from nightshard.results.store import write_table


def answers_to(requests: Iterable[Request], texts: Iterable[str]) -> pa.Table:
    """Give each request a text, as if a run had been merged."""
    rows = [
        {
            "request_id": request.request_id,
            "benchmark": request.benchmark,
            "problem_id": request.problem_id,
            "repeat_idx": request.repeat_idx,
            "text": text,
            "finish_reason": "stop",
        }
        for request, text in zip(requests, texts, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=MERGED_SCHEMA)


def merge_shards(expected: pa.Table, shards: Sequence[ShardOutput], **options: Any) -> pa.Table:
    """Merge a run into one table."""
    chunks = merge.merged_chunks(expected, shards, **options)
    return pa.concat_tables([MERGED_SCHEMA.empty_table(), *chunks])


def save_answers(root: UPath | str, fingerprint: str, run_key: str, table: pa.Table) -> UPath:
    """Store a table of answers."""
    with tempfile.TemporaryDirectory() as folder:
        merged = UPath(Path(folder) / "merged.parquet")
        write_table(merged, table)
        return answers.save_answers(root, fingerprint, run_key, merged)
