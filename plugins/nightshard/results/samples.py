"""Single answers of a run, found fast: DuckDB over the parquet files of the artefact store.

What answers are filtered by is small, so it is read once a run into a table in memory, with the
place of each answer in its file. A page is then chosen there, and only its rows are read.
"""
# ruff: noqa: S608 (the names of tables are hashes that are made here; values are parameters)

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results.store import RunStore, local_path

TABLES_KEPT = 12
"""Tables in memory: runs, pairs of runs, searches."""

EXCERPT = 200
"""Characters of an answer and of a question that a list shows."""

_MEMORY = "2GB"


class NoSampleError(UserError):
    """The run has no such answer."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which answers are wanted; None and the empty string mean all.

    Attributes:
        benchmark: registry name.
        problem: problem id.
        correct: what the judge said.
        truncated: whether the answer ended at its token limit.
        error: whether the worker noted an error.
        text: part of the answer, in any case.
        changed: with another run beside it: whether the other one's verdict differs.
    """

    benchmark: str = ""
    problem: str = ""
    correct: bool | None = None
    truncated: bool | None = None
    error: bool | None = None
    text: str = ""
    changed: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list of answers.

    Attributes:
        total: answers that the filter lets through.
        rows: those of the page, as JSON.
        benchmarks: all that the run has.
    """

    total: int
    rows: list[dict[str, Any]]
    benchmarks: list[str]


class Samples:
    """The answers of runs in one artefact store; may be used by several threads at once.

    Args:
        root: the store, a folder or any fsspec URL.
    """

    def __init__(self, root: UPath | str) -> None:
        self._root = UPath(root)
        self._database = duckdb.connect(config={"memory_limit": _MEMORY})
        self._lock = threading.Lock()
        self._tables: OrderedDict[str, None] = OrderedDict()
        if local_path(self._root) is None:
            self._database.register_filesystem(self._root.fs)

    def page(
        self, run_key: str, wanted: Filter, *, beside: str = "", offset: int = 0, limit: int = 50
    ) -> Page:
        """Return a part of a run's answers, in the order of the questions.

        Args:
            run_key: the run.
            wanted: which answers.
            beside: key of another run, whose verdict on the same problem and repeat is shown too.
            offset: answers that are passed over.
            limit: answers of the page, at most.

        Raises:
            UserError: a run has no answers in the store.
        """
        store = RunStore(self._root, run_key)
        with self._opened(store, beside, wanted.text) as (connection, tables):
            conditions, values = _conditions(wanted, tables)
            where = f"FROM {tables.listed} WHERE {' AND '.join(conditions)}"
            total = _one(connection, f"SELECT count(*) {where}", values)
            chosen = connection.execute(
                f"SELECT place, {'correct_beside' if beside else 'NULL'} {where} "
                "ORDER BY place LIMIT ? OFFSET ?",
                [*values, limit, offset],
            ).fetchall()
            names = connection.execute(f"SELECT DISTINCT benchmark FROM {tables.run} ORDER BY 1")
            benchmarks = [row[0] for row in names.fetchall()]
            rows = self._rows(connection, store, tables.run, dict(chosen))
        if not beside:
            for row in rows:
                del row["correct_beside"]
        return Page(int(total), rows, benchmarks)

    def one(self, run_key: str, request_id: str) -> dict[str, Any]:
        """Return one answer with its question, its gold answer and its verdict.

        Raises:
            NoSampleError: the run has no such answer.
            UserError: the run has no answers in the store.
        """
        store = RunStore(self._root, run_key)
        with self._opened(store) as (connection, tables):
            found = connection.execute(
                "SELECT place, verdict_place, (SELECT count(*) FROM "
                f"{tables.run} AS j WHERE j.place <= i.place) FROM {tables.run} AS i "
                "WHERE request_id = ?",
                [request_id],
            ).fetchone()
            if found is None:
                raise NoSampleError(f"Run {run_key} has no answer to the request {request_id!r}.")
            place, verdict_place, number = found
            row = _at(connection, store.answers, place)
            row |= _some(_at(connection, store.verdicts, verdict_place), _VERDICT)
            # Requests lie in the order of the answers, with gaps where some are missing.
            asked = _at(connection, store.requests, place)
            if asked.get("request_id") != request_id:
                asked = _first(connection, store.requests, "request_id = ?", [request_id])
            row |= _some(asked, _REQUEST)
            problem = [row["benchmark"], row["problem_id"]]
            where = "benchmark = ? AND problem_id = ?"
            row |= _some(_first(connection, store.problems, where, problem), _PROBLEM)
            around = connection.execute(
                f"SELECT place, request_id FROM {tables.run} WHERE place IN (?, ?)",
                [place - 1, place + 1],
            ).fetchall()
        neighbours = dict(around)
        row["number"] = number
        row["previous"] = neighbours.get(place - 1)
        row["next"] = neighbours.get(place + 1)
        return row

    def counterpart(self, run_key: str, sample: dict[str, Any]) -> str | None:
        """Return the request of another run that asked the same problem and repeat."""
        with self._opened(RunStore(self._root, run_key)) as (connection, tables):
            found = connection.execute(
                f"SELECT request_id FROM {tables.run} "
                "WHERE benchmark = ? AND problem_id = ? AND repeat_idx = ?",
                [sample["benchmark"], sample["problem_id"], sample["repeat_idx"]],
            ).fetchone()
        return None if found is None else str(found[0])

    def _rows(
        self,
        connection: duckdb.DuckDBPyConnection,
        store: RunStore,
        table: str,
        chosen: dict[int, bool | None],
    ) -> list[dict[str, Any]]:
        if not chosen:
            return []
        places = ", ".join(map(str, chosen))
        rows = _dicts(
            connection,
            f"SELECT i.* EXCLUDE (verdict_place), substr(a.text, 1, {EXCERPT}) AS excerpt, "
            f"length(a.text) AS characters FROM {table} AS i "
            "JOIN (SELECT file_row_number, text FROM read_parquet(?, file_row_number = true) "
            "WHERE file_row_number BETWEEN ? AND ? "
            f"AND file_row_number IN ({places})) AS a ON a.file_row_number = i.place "
            f"WHERE i.place IN ({places}) ORDER BY i.place",
            [_url(store.answers), min(chosen), max(chosen)],
        )
        for row in rows:
            row["correct_beside"] = chosen[row.pop("place")]
        return rows

    @contextlib.contextmanager
    def _opened(
        self, store: RunStore, beside: str = "", text: str = ""
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, "_Tables"]]:
        connection = self._database.cursor()
        try:
            with self._lock:
                run = self._run_table(connection, store)
                listed = run
                if beside:
                    other = self._run_table(connection, RunStore(self._root, beside))
                    listed = self._pair_table(connection, run, other)
                hits = self._text_table(connection, store, run, text) if text else None
                tables = _Tables(run, listed, hits)
                # From its first look on, a transaction keeps tables that others drop.
                connection.begin()
                for name in {run, listed, *([hits] if hits else [])}:
                    connection.execute(f"SELECT 1 FROM {name} LIMIT 0")
            yield connection, tables
        except duckdb.Error as error:
            raise UserError(
                f"The answers of run {store.run_key} cannot be read: {_line(error)}."
            ) from None
        finally:
            connection.close()

    def _run_table(self, connection: duckdb.DuckDBPyConnection, store: RunStore) -> str:
        """Return the table of a run as its files are now."""
        stamp = [store.run_key, _stamp(store.answers), _stamp(store.verdicts)]
        return self._kept(
            connection,
            stamp,
            "SELECT a.file_row_number AS place, v.file_row_number AS verdict_place, "
            "a.request_id, a.benchmark, a.problem_id, a.repeat_idx, a.output_tokens, "
            "a.finish_reason, a.error, v.correct, v.extracted, v.reason "
            "FROM read_parquet(?, file_row_number = true) AS a "
            "LEFT JOIN read_parquet(?, file_row_number = true) AS v "
            "ON v.request_id = a.request_id ORDER BY a.file_row_number",
            [_url(store.answers), _url(store.verdicts)],
        )

    def _pair_table(self, connection: duckdb.DuckDBPyConnection, run: str, other: str) -> str:
        """Return the table of two runs side by side, the answers that both have."""
        return self._kept(
            connection,
            [run, other],
            f"SELECT i.*, o.correct AS correct_beside FROM {run} AS i JOIN {other} AS o "
            "USING (benchmark, problem_id, repeat_idx) ORDER BY i.place",
            [],
        )

    def _text_table(
        self, connection: duckdb.DuckDBPyConnection, store: RunStore, run: str, text: str
    ) -> str:
        """Return the table of the places at which a text was found; this reads every answer."""
        return self._kept(
            connection,
            [run, text],
            "SELECT file_row_number AS place FROM read_parquet(?, file_row_number = true) "
            "WHERE contains(lower(text), lower(?))",
            [_url(store.answers), text],
        )

    def _kept(
        self,
        connection: duckdb.DuckDBPyConnection,
        content: Sequence[str],
        query: str,
        values: Sequence[Any],
    ) -> str:
        """Return the table of a query's rows, made where it is not there any more."""
        name = f"t_{hashlib.sha256(repr(content).encode()).hexdigest()[:24]}"
        if name not in self._tables:
            connection.execute(f"CREATE OR REPLACE TABLE {name} AS {query}", values)
        self._tables[name] = None
        self._tables.move_to_end(name)
        while len(self._tables) > TABLES_KEPT:
            old, _ = self._tables.popitem(last=False)
            connection.execute(f"DROP TABLE IF EXISTS {old}")
        return name


@dataclass(frozen=True, slots=True)
class _Tables:
    """Names of tables in memory.

    Attributes:
        run: a run's answers.
        listed: those that a list is chosen from, with another run's verdicts where one is beside.
        hits: places at which a text was found.
    """

    run: str
    listed: str
    hits: str | None


_VERDICT = ("correct", "extracted", "reason", "credit")
_REQUEST = ("messages", "sampling")
_PROBLEM = ("gold", "subset")


def _conditions(wanted: Filter, tables: _Tables) -> tuple[list[str], list[Any]]:
    conditions, values = ["true"], []
    for column, value in (("benchmark", wanted.benchmark), ("problem_id", wanted.problem)):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    flags = {
        "correct": wanted.correct,
        "(finish_reason IS NOT DISTINCT FROM 'length')": wanted.truncated,
        "(error IS NOT NULL)": wanted.error,
    }
    if tables.listed != tables.run:
        flags["(correct IS DISTINCT FROM correct_beside)"] = wanted.changed
    for condition, flag in flags.items():
        if flag is not None:
            conditions.append(f"{condition} = {'true' if flag else 'false'}")
    if tables.hits is not None:
        conditions.append(f"place IN (SELECT place FROM {tables.hits})")
    return conditions, values


def _at(connection: duckdb.DuckDBPyConnection, path: UPath, place: int | None) -> dict[str, Any]:
    """Return a row by its place in a file, empty where there is none."""
    if place is None or not path.exists():
        return {}
    found = _dicts(
        connection,
        "SELECT * EXCLUDE (file_row_number) FROM read_parquet(?, file_row_number = true) "
        "WHERE file_row_number = ?",
        [_url(path), place],
    )
    return found[0] if found else {}


def _first(
    connection: duckdb.DuckDBPyConnection, path: UPath, where: str, values: Sequence[Any]
) -> dict[str, Any]:
    """Return the first row that fits, empty where there is none."""
    if not path.exists():
        return {}
    query = f"SELECT * FROM read_parquet(?) WHERE {where} LIMIT 1"
    found = _dicts(connection, query, [_url(path), *values])
    return found[0] if found else {}


def _some(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return some columns, None for those that are not there."""
    return {name: row.get(name) for name in columns}


def _dicts(
    connection: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any]
) -> list[dict[str, Any]]:
    result = connection.execute(query, values)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _one(connection: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any]) -> Any:
    row = connection.execute(query, values).fetchone()
    assert row is not None  # noqa: S101 (an aggregate has a row)
    return row[0]


def _url(path: UPath) -> str:
    local = local_path(path)
    return str(local) if local is not None else str(path)


def _stamp(path: UPath) -> str:
    """Return what changes when a file is written anew.

    Raises:
        UserError: it is not there.
    """
    try:
        info = path.fs.info(path.path)
    except FileNotFoundError:
        raise UserError(
            f"The file {path} is not there: the run is not scored yet, or its files were removed."
        ) from None
    marks = ("size", "mtime", "LastModified", "ETag", "created", "ino")
    return repr([info.get(name) for name in marks])


def _line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
