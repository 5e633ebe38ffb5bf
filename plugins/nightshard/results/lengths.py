"""How long answers to a problem were, by which work is balanced."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from nightshard.core.plan import PastLengths

MOST_FILES = 50
"""Newest files that are looked at: lengths of old checkpoints say little of new ones."""


def past_lengths(root: UPath | str, benchmarks: Iterable[str]) -> PastLengths:
    """Read the mean output lengths of the newest answers in the store, of any model.

    Args:
        root: the artefact store.
        benchmarks: whose problems are looked for.

    Returns:
        Means in tokens, by problem and by benchmark; empty where nothing was answered. A file that
        cannot be read is passed over, since a balance is all that hangs on it.
    """
    wanted = pa.array(sorted(set(benchmarks)), pa.string())
    folder = UPath(root) / "answers"
    files = sorted(folder.glob("*/*.parquet"), key=_age, reverse=True) if folder.is_dir() else []
    tables = [table for file in files[:MOST_FILES] if (table := _read(file, wanted)) is not None]
    if not tables:
        return PastLengths({}, {})
    table = pa.concat_tables(tables)
    by_problem = table.group_by(["benchmark", "problem_id"]).aggregate([("output_tokens", "mean")])
    by_benchmark = table.group_by("benchmark").aggregate([("output_tokens", "mean")])
    return PastLengths(
        {
            (row["benchmark"], row["problem_id"]): row["output_tokens_mean"]
            for row in by_problem.to_pylist()
        },
        {row["benchmark"]: row["output_tokens_mean"] for row in by_benchmark.to_pylist()},
    )


def _age(file: UPath) -> float:
    return float(file.stat().st_mtime)


def _read(file: UPath, benchmarks: "pa.Array[pa.StringScalar]") -> pa.Table | None:
    columns = ["benchmark", "problem_id", "output_tokens", "error"]
    try:
        with file.open("rb") as stream:
            table = pq.read_table(stream, columns=columns)
    except (OSError, pa.ArrowException):
        return None
    of_these = pc.is_in(table.column("benchmark"), value_set=benchmarks)
    return table.filter(pc.and_(of_these, pc.is_null(table.column("error")))).drop_columns("error")
