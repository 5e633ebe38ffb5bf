"""Where the tasks of a run leave what the next one needs: a folder, or any fsspec URL."""

import contextlib
import json
import os
import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results.records import ShardKey

_RUN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunStore:
    """The folder ``<root>/runs/<run_key>/`` of one run.

    Attributes:
        root: the store; merged answers lie elsewhere in it, under ``answers/``.
        run_key: the run.
        folder: the run's folder.
    """

    def __init__(self, root: UPath | str, run_key: str) -> None:
        if not _RUN_KEY.fullmatch(run_key):
            raise UserError(
                f"{run_key!r} cannot be a run key: use letters, digits, dots, dashes and "
                "underscores, beginning with a letter or digit."
            )
        self.root = UPath(root)
        self.run_key = run_key
        self.folder: UPath = self.root / "runs" / run_key

    @property
    def spec(self) -> UPath:
        """The staged ``spec.json``."""
        return self.folder / "spec.json"

    @property
    def requests(self) -> UPath:
        """Every request of the run."""
        return self.folder / "requests.parquet"

    @property
    def problems(self) -> UPath:
        """The problems with their gold answers, which never leave the control plane."""
        return self.folder / "problems.parquet"

    @property
    def inputs(self) -> UPath:
        """Folder of the shards' inputs, as they are staged."""
        return self.folder / "inputs"

    @property
    def outputs(self) -> UPath:
        """Folder of the shards' outputs and manifests, as they were collected."""
        return self.folder / "outputs"

    @property
    def answers(self) -> UPath:
        """The merged answers of this run."""
        return self.folder / "answers.parquet"

    @property
    def verdicts(self) -> UPath:
        """What the judge said of each answer."""
        return self.folder / "verdicts.parquet"

    @property
    def scorecard(self) -> UPath:
        """The run's scores before they go into the database."""
        return self.folder / "scorecard.json"

    @property
    def attempts(self) -> UPath:
        """How each attempt at each shard ended, a JSON list; absent where nothing was submitted."""
        return self.folder / "attempts.json"

    def input(self, rank: int, world_size: int) -> UPath:
        """One shard's input."""
        return self.inputs / f"shard-{rank:05d}-of-{world_size:05d}.parquet"

    def output(self, rank: int, world_size: int) -> UPath:
        """One shard's output."""
        return self.outputs / f"shard-{rank:05d}-of-{world_size:05d}.parquet"

    def manifest(self, rank: int, world_size: int) -> UPath:
        """One shard's manifest."""
        return self.outputs / f"shard-{rank:05d}-of-{world_size:05d}.manifest.json"


@contextlib.contextmanager
def atomic_file(path: UPath) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears whole at the end of the block, or not at all.

    On a local disk it is written beside its place, synced and renamed over it. Elsewhere it is
    written to a temporary local file and uploaded when it is complete.
    """
    local = local_path(path)
    if local is not None:
        local.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.gettempdir()) if local is None else local.parent
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if local is not None:
            temporary.replace(local)
            _sync_folder(local.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.fs.put_file(str(temporary), path.path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: UPath, content: bytes) -> None:
    """Write a whole file, atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: UPath, value: Any) -> None:
    """Write a JSON value, atomically.

    Raises:
        ValueError: a float is not finite, which JSON cannot say.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode("utf-8", "surrogatepass") + b"\n")


def read_json(path: UPath) -> Any:
    """Read what :func:`write_json` wrote.

    Raises:
        UserError: there is no such file, or it is not JSON.
    """
    with _explained(path):
        return json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))


def write_table(path: UPath, table: pa.Table) -> None:
    """Write a parquet file, atomically."""
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_table(path: UPath, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file, or some of its columns.

    Raises:
        UserError: there is no such file, or it is not parquet with those columns.
    """
    with _parquet(path, columns or ()) as parquet:
        return parquet.read(columns=columns)


def read_batches(path: UPath, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Read a parquet file piece by piece.

    Args:
        path: the file.
        columns: those that are wanted.
        rows: in a piece, at most.

    Raises:
        UserError: as :func:`read_table`.
    """
    with _parquet(path, columns) as parquet:
        yield from parquet.iter_batches(batch_size=rows, columns=columns)


@contextlib.contextmanager
def _parquet(path: UPath, columns: Iterable[str]) -> Iterator[pq.ParquetFile]:
    with _explained(path), path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        missing = sorted(set(columns) - set(parquet.schema_arrow.names))
        if missing:
            raise UserError(
                f"The file {path} has no column {missing[0]!r}: another version of Nightshard "
                "wrote it, so run the step that writes it again."
            )
        yield parquet


def read_shard_keys(url: UPath | str) -> Counter[ShardKey]:
    """Count how many answers of an answers parquet each shard attempt gave.

    Raises:
        UserError: as :func:`read_table`.
    """
    columns = ["run_key", "rank", "attempt"]
    counts = read_table(UPath(url), columns).group_by(columns).aggregate([([], "count_all")])
    return Counter(
        {
            ShardKey(row["run_key"], row["rank"], row["attempt"]): row["count_all"]
            for row in counts.to_pylist()
        }
    )


@contextlib.contextmanager
def _explained(path: UPath) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            f"The file {path} is not there: it was removed or moved, so run the step that writes "
            "it again, or restore it."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise UserError(
            f"The file {path} is damaged ({str(error).splitlines()[0]}): remove it and run the "
            "step that writes it again."
        ) from error


def local_path(path: UPath) -> Path | None:
    """Return where a file lies on this machine, None where it lies elsewhere."""
    return Path(path.path) if path.protocol in ("", "file", "local") else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
