"""The answers that exist: ``<root>/answers/<fingerprint>/<run_key>.parquet``.

An answer is known by the pair of fingerprint and request id, whichever run gave it.
"""

import re
import shutil
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results.arrow import MERGED_SCHEMA
from nightshard.results.store import atomic_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def answers_path(root: UPath | str, fingerprint: str, run_key: str) -> UPath:
    """Say where a run's merged answers lie.

    Raises:
        ValueError: the fingerprint or the run key is no plain name.
    """
    for name in (fingerprint, run_key):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a file in the answer store")
    return UPath(root) / "answers" / fingerprint / f"{run_key}.parquet"


def save_answers(root: UPath | str, fingerprint: str, run_key: str, merged: UPath) -> UPath:
    """Store a run's merged answers, whole or not at all; a second time replaces the first.

    Args:
        root: the artefact store, a folder or an fsspec URL.
        fingerprint: of every answer in the file.
        run_key: the run.
        merged: what :func:`nightshard.results.merge.write_merged` wrote.

    Returns:
        The file.

    Raises:
        ValueError: an answer has another fingerprint.
    """
    path = answers_path(root, fingerprint, run_key)
    with merged.open("rb") as source:
        for batch in pq.ParquetFile(source).iter_batches(columns=["fingerprint"]):
            others = set(batch.column(0).unique().to_pylist()) - {fingerprint}
            if others:
                raise ValueError(
                    f"answers of fingerprint {others.pop()} among those of {fingerprint}"
                )
        source.seek(0)
        with atomic_file(path) as file:
            shutil.copyfileobj(source, file)
    return path


def known_answers(
    root: UPath | str, fingerprint: str, request_ids: Iterable[str], *, but_of: str | None = None
) -> pa.Table:
    """Look up which of some requests are answered already.

    An answer that is an error does not count; the request is worth another try. Where several runs
    answered, the first by run key counts, so that every call finds the same.

    Args:
        root: the artefact store.
        fingerprint: what produced the answers.
        request_ids: the requests.
        but_of: a run whose own answers are not looked at.

    Returns:
        At most one row a request (:data:`~nightshard.results.arrow.MERGED_SCHEMA`).

    Raises:
        UserError: a file of the store cannot be read.
    """
    folder = answers_path(root, fingerprint, "any").parent
    wanted = pa.array(dict.fromkeys(request_ids), pa.string())
    found = [MERGED_SCHEMA.empty_table()]
    if len(wanted) and folder.is_dir():
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            if path.suffix != ".parquet" or path.stem == but_of:
                continue
            table = _read(path, wanted)
            found.append(table)
            wanted = wanted.filter(
                pc.invert(pc.is_in(wanted, value_set=table.column("request_id").combine_chunks()))
            )
            if not len(wanted):
                break
    return pa.concat_tables(found)


def _read(path: UPath, wanted: "pa.Array[Any]") -> pa.Table:
    answered = pc.field("request_id").isin(wanted) & pc.field("error").is_null()
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file).read(columns=MERGED_SCHEMA.names)
            return table.cast(MERGED_SCHEMA).filter(answered)
    except (pa.ArrowException, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise UserError(
            f"The stored answers {path} cannot be read ({reason}); remove that file and the "
            "answers in it are generated again."
        ) from None
