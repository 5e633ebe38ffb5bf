"""From the shards' outputs to one table: complete, or refused."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from nightshard.core.errors import IncompleteRunError
from nightshard.results.arrow import ANSWER_SCHEMA, MERGED_SCHEMA
from nightshard.results.spill import Spill
from nightshard.results.store import atomic_file

SHOWN_IDS = 3
_KEYS = pa.schema([MERGED_SCHEMA.field(name) for name in ("request_id", "rank")])


@dataclass(frozen=True, slots=True)
class ShardOutput:
    """What one shard left.

    Attributes:
        output: the parquet file, its path or its bytes.
        manifest: the manifest's JSON.
    """

    output: Path | UPath | bytes
    manifest: Mapping[str, Any]


def write_merged(path: UPath, chunks: Iterable[pa.Table]) -> int:
    """Write what :func:`merged_chunks` gives as one parquet file, atomically.

    Returns:
        Number of answers.
    """
    rows = 0
    with (
        atomic_file(path) as file,
        pq.ParquetWriter(file, MERGED_SCHEMA, compression="zstd") as writer,
    ):
        for chunk in chunks:
            writer.write_table(chunk)
            rows += chunk.num_rows
    return rows


def merged_chunks(
    expected: pa.Table,
    shards: Sequence[ShardOutput],
    *,
    run_key: str,
    fingerprint: str,
    manifest_schema: Mapping[str, Any],
    reused: pa.Table | None = None,
) -> Iterator[pa.Table]:
    """Merge the answers of a run, some thousand at a time, so that any number fits into memory.

    Everything is checked before the first answers come.

    Args:
        expected: every request of the run in the wanted order; column ``request_id`` and, to say
            which shard owes an answer, ``rank`` (:func:`nightshard.results.arrow.planned_table`).
        shards: the outputs, in any order.
        run_key: the run that the manifests must name.
        fingerprint: the fingerprint that every answer must have.
        manifest_schema: the worker's ``manifest.schema.json``.
        reused: answers of earlier runs (:data:`~nightshard.results.arrow.MERGED_SCHEMA`).

    Yields:
        Exactly one answer for every request, in the order of ``expected``
        (:data:`~nightshard.results.arrow.MERGED_SCHEMA`). An answer may be an error row.

    Raises:
        IncompleteRunError: a manifest or file does not hold what it must, or answers are missing,
            foreign or doubled; one sentence with counts, first ids and shards.
    """
    check_manifests(
        [shard.manifest for shard in shards],
        run_key=run_key,
        fingerprint=fingerprint,
        manifest_schema=manifest_schema,
    )
    sources = [_Source.of_shard(shard, run_key, fingerprint) for shard in shards]
    if reused is not None:
        sources.append(_Source.of_reused(reused, fingerprint))
    keys = pa.concat_tables([_KEYS.empty_table(), *(source.keys for source in sources)])
    places = _places(expected, keys)
    with Spill(MERGED_SCHEMA, len(places)) as spill:
        start = 0
        for source in sources:
            stop = start + source.keys.num_rows
            spill.add(source.read(), places[start:stop])
            start = stop
        yield from spill.windows()


@dataclass(frozen=True, slots=True)
class _Source:
    """Some of the answers.

    Attributes:
        keys: request id and rank of each.
        read: reads them whole, in the same order.
    """

    keys: pa.Table
    read: Callable[[], pa.Table]

    @classmethod
    def of_shard(cls, shard: ShardOutput, run_key: str, fingerprint: str) -> "_Source":
        """Check a shard's output, and keep its keys alone.

        Raises:
            IncompleteRunError: it does not hold what its manifest says.
        """
        return cls(_read_keys(shard), lambda: _mark(_read_shard(shard), run_key, fingerprint))

    @classmethod
    def of_reused(cls, reused: pa.Table, fingerprint: str) -> "_Source":
        """Check answers of earlier runs.

        Raises:
            IncompleteRunError: they have another fingerprint.
        """
        strange = set(reused.column("fingerprint").unique().to_pylist()) - {fingerprint}
        if strange:
            raise IncompleteRunError(
                f"Reused answers have the fingerprint {strange.pop()} and this run {fingerprint}; "
                "two fingerprints are never mixed."
            )
        table = reused.select(MERGED_SCHEMA.names).cast(MERGED_SCHEMA)
        return cls(table.select(_KEYS.names), lambda: table)


def check_manifests(
    manifests: Sequence[Mapping[str, Any]],
    *,
    run_key: str,
    fingerprint: str,
    manifest_schema: Mapping[str, Any],
) -> None:
    """Refuse manifests that do not belong together or to this run.

    Raises:
        IncompleteRunError: one sentence on the first fault.
    """
    validator = jsonschema.Draft202012Validator(manifest_schema)
    for manifest in manifests:
        error = jsonschema.exceptions.best_match(validator.iter_errors(dict(manifest)))
        if error is not None:
            place = ".".join(map(str, error.absolute_path)) or "the manifest"
            raise IncompleteRunError(
                f"A manifest ({manifest.get('output_file', 'no output file')}) does not follow the "
                f"contract: {place}: {error.message[:200]}."
            )
        for key, wanted in (("run_key", run_key), ("fingerprint", fingerprint)):
            if manifest[key] != wanted:
                raise IncompleteRunError(
                    f"{_shard(manifest)} has the {key} {manifest[key]} and this run {wanted}; "
                    "answers of two are never mixed."
                )
    _check_ranks(manifests)


def _check_ranks(manifests: Sequence[Mapping[str, Any]]) -> None:
    sizes = sorted({manifest["world_size"] for manifest in manifests})
    if len(sizes) > 1:
        raise IncompleteRunError(
            f"Outputs of {sizes[0]} shards and of {sizes[1]} shards lie side by side; they are "
            "never mixed, so remove those of the other split."
        )
    seen: set[int] = set()
    for manifest in manifests:
        rank, size = manifest["rank"], manifest["world_size"]
        if rank in seen:
            raise IncompleteRunError(f"{_shard(manifest)} is there twice; remove one.")
        seen.add(rank)
        name = f"shard-{rank:05d}-of-{size:05d}.parquet"
        if rank >= size or manifest["output_file"] != name:
            raise IncompleteRunError(
                f"{_shard(manifest)}'s manifest names {manifest['output_file']}, not {name}; "
                "it is not of this contract."
            )


def _read_keys(shard: ShardOutput) -> pa.Table:
    """Read what tells a shard's answers apart, and check its file against its manifest.

    Raises:
        IncompleteRunError: it is gone, damaged, or not what the manifest says.
    """
    manifest = shard.manifest
    name = _shard(manifest)
    data = _bytes(shard)
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise IncompleteRunError(
            f"{name}: {manifest['output_file']} is not the file that its manifest was written "
            "for (the checksum differs); collect it again."
        )
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        file.schema_arrow.empty_table().select(ANSWER_SCHEMA.names).cast(ANSWER_SCHEMA)
        table = file.read(columns=[*_KEYS.names, "error"])
        keys = table.select(_KEYS.names).cast(_KEYS)
    except (pa.ArrowException, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise IncompleteRunError(f"{name} is not an output of this contract: {reason}.") from None
    errors = table.num_rows - table.column("error").null_count
    for what, held in (("rows", table.num_rows), ("errors", errors)):
        if held != manifest[what]:
            raise IncompleteRunError(
                f"{name} holds {held} {what} and its manifest says {manifest[what]}; collect it "
                "again."
            )
    return keys


def _read_shard(shard: ShardOutput) -> pa.Table:
    """Read a shard's answers, which :func:`_read_keys` has checked."""
    table = pq.read_table(pa.BufferReader(_bytes(shard)))
    return table.select(ANSWER_SCHEMA.names).cast(ANSWER_SCHEMA)


def _bytes(shard: ShardOutput) -> bytes:
    try:
        return shard.output if isinstance(shard.output, bytes) else shard.output.read_bytes()
    except FileNotFoundError:
        raise IncompleteRunError(
            f"{_shard(shard.manifest)} has a manifest but no {shard.manifest['output_file']}; "
            "collect it again."
        ) from None


def _mark(table: pa.Table, run_key: str, fingerprint: str) -> pa.Table:
    for name, value in (("run_key", run_key), ("fingerprint", fingerprint)):
        column = pa.repeat(pa.scalar(value, pa.string()), table.num_rows)
        table = table.append_column(MERGED_SCHEMA.field(name), column)
    return table


def _places(expected: pa.Table, answers: pa.Table) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return the place of each answer in the wanted order; refuse anything but one for each."""
    wanted = expected.column("request_id").combine_chunks()
    given = answers.column("request_id").combine_chunks()
    place = pc.index_in(given, value_set=wanted)
    strange = pc.is_null(place)
    if foreign := place.null_count:
        raise IncompleteRunError(
            f"{_count(foreign, 'answer')} not to a request of this run "
            f"({_some(given.filter(strange))}); nothing was merged."
        )
    places = place.to_numpy(zero_copy_only=False).astype(np.int64)
    times = np.bincount(places, minlength=len(wanted))
    doubled = np.flatnonzero(times > 1)
    if len(doubled):
        who = _shards(answers.filter(pa.array(np.isin(places, doubled))).column("rank"))
        raise IncompleteRunError(
            f"{_count(len(doubled), 'request')} answered more than once "
            f"({_some(wanted.take(doubled))}) by {who}; nothing was merged."
        )
    missing = np.flatnonzero(times == 0)
    if len(missing):
        owed = ""
        if "rank" in expected.column_names:
            owed = f", planned for {_shards(expected.column('rank').take(missing))}"
        raise IncompleteRunError(
            f"{len(missing)} of {_count(len(wanted), 'answer')} missing "
            f"({_some(wanted.take(missing))}){owed}; a missing answer is not a wrong "
            "one, so nothing was merged."
        )
    return places


def _shard(manifest: Mapping[str, Any]) -> str:
    """Name a shard as the Airflow grid does, counted from 1."""
    return f"Shard {manifest['rank'] + 1} of {manifest['world_size']}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s are' if number != 1 else ' is'}"


def _some(ids: Iterable[Any]) -> str:
    names = [str(name) for name in ids]
    more = ", …" if len(names) > SHOWN_IDS else ""
    return ", ".join(names[:SHOWN_IDS]) + more


def _shards(ranks: "pa.ChunkedArray[Any]") -> str:
    known = sorted(rank for rank in ranks.unique().to_pylist() if rank is not None)
    names = [f"shard {rank + 1}" for rank in known[:SHOWN_IDS]]
    if ranks.null_count:
        names.append("the answers of earlier runs")
    more = ", …" if len(known) > SHOWN_IDS else ""
    return ", ".join(names) + more
