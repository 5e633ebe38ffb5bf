"""What the merge and the answer store take and give as files, as tables."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from upath import UPath

from nightshard.results import answers, merge
from nightshard.results.arrow import MERGED_SCHEMA
from nightshard.results.merge import ShardOutput
from nightshard.results.store import write_table


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
