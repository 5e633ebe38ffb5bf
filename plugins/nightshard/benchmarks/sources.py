"""Reading a benchmark's questions from the Hub or from a file."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshard.benchmarks.base import BenchmarkInfo, Problem
from nightshard.core.errors import UserError

Row = Mapping[str, Any]

_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Columns:
    """Under which names, the preferred first and in any case, a row may hold its values."""

    question: tuple[str, ...] = ("problem", "question", "prompt")
    gold: tuple[str, ...] = ("answer", "expected_answer", "gold", "target")
    problem_id: tuple[str, ...] = ("unique_id", "problem_id", "id")
    subset: tuple[str, ...] = ()
    clean_gold: Callable[[str], str] | None = None
    """Takes the answer alone out of a gold text that says more."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A dataset on the Hugging Face Hub.

    Attributes:
        path: for example ``HuggingFaceH4/MATH-500``.
        split: the split to load.
        name: configuration of the dataset.
        revision: commit; None follows the main branch.
        keep: which rows belong to the benchmark; None keeps all.
    """

    path: str
    split: str
    name: str | None = None
    revision: str | None = None
    keep: Callable[[Row], bool] | None = None


def load(
    benchmark: str,
    source: str | None,
    hub: HubSource | None,
    columns: Columns,
    *,
    expected: int | None,
) -> list[Problem]:
    """Load a benchmark's problems.

    Args:
        benchmark: its name, for messages.
        source: a local file; None means the Hub.
        hub: where the benchmark lies on the Hub, None for a bundled one.
        columns: under which names a row may hold its values.
        expected: how many problems the source must give; None for a file of the user's own, which
            may hold any number.

    Returns:
        The problems in the order of the source.

    Raises:
        UserError: the source cannot be read, lacks a column, holds an empty or doubled problem, or
            the number of problems is not the recorded one.
    """
    where, rows = read_rows(benchmark, source, hub)
    problems = to_problems(rows, columns, where)
    check_count(benchmark, problems, where, expected)
    return problems


def read_rows(
    benchmark: str, source: str | None, hub: HubSource | None
) -> tuple[str, Iterator[tuple[str, Row]]]:
    """Return what a benchmark's source is called, and its rows with their places.

    Args:
        benchmark: its name, for messages.
        source: a local file; None means the Hub.
        hub: where the benchmark lies on the Hub, None for a bundled one.

    Raises:
        UserError: there is neither; the rows raise it where they cannot be read.
    """
    if source is not None:
        path = Path(source).expanduser()
        return path.name, read_file(path)
    if hub is not None:
        return f"{hub.path} on the Hub", _read_hub(benchmark, hub)
    raise UserError(f"{benchmark} is not on the Hub; give a local file as its source.")


def load_rows(
    info: BenchmarkInfo,
    source: str | None,
    hub: HubSource | None,
    read: Callable[[int, Row], Problem],
    like: str,
) -> list[Problem]:
    """Load a benchmark's problems by a function that knows its columns.

    Args:
        info: the benchmark.
        source: a local file; None or empty means the Hub.
        hub: where the benchmark lies on the Hub, None where it is in a file.
        read: makes a problem of a row and its number from 0; raises KeyError for a column that is
            not there, and ValueError with a sentence.
        like: which columns a row should have.

    Raises:
        UserError: as :func:`load`.
    """
    where, rows = read_rows(info.name, source or None, hub)

    def make(index: int, place: str, row: Row) -> Problem:
        try:
            return read(index, row)
        except KeyError as missing:
            raise no_column(missing, row, f"{place} of {where}", like) from None
        except ValueError as error:
            raise UserError(f"{where} cannot be used at {place}: {error}") from None

    problems = collect(rows, make, where)
    check_count(info.name, problems, where, None if source else info.problems)
    return problems


def check_count(
    benchmark: str, problems: Sequence[Problem], where: str, expected: int | None
) -> None:
    """Make sure that the source holds the problems that were recorded.

    Raises:
        UserError: it holds more or fewer.
    """
    if expected is not None and len(problems) != expected:
        raise UserError(
            f"{where} gave {len(problems)} problems of {benchmark}, but {expected} were recorded; "
            "its content has changed, so give a local file of the known content as source."
        )


def to_problems(rows: Iterable[tuple[str, Row]], columns: Columns, where: str) -> list[Problem]:
    """Turn rows into problems.

    Args:
        rows: pairs of the row's place, for example ``line 3``, and the row.
        columns: under which names a row may hold its values.
        where: the source, for messages.

    Raises:
        UserError: no rows, a missing column, an empty question or answer, or a doubled id, with
            the place.
    """

    def make(index: int, place: str, row: Row) -> Problem:
        by_key = {str(key).strip().lower(): key for key in row}
        at = f"at {place} of {where}"
        question = _text(row, by_key, columns.question, what="question", at=at)
        gold = _text(row, by_key, columns.gold, what="gold answer", at=at)
        if columns.clean_gold is not None:
            gold = columns.clean_gold(gold)
        id_key = _find(by_key, columns.problem_id)
        problem_id = _plain(row[id_key]).strip() if id_key is not None else ""
        subset_key = _find(by_key, columns.subset)
        subset = _plain(row[subset_key]).strip() if subset_key is not None else ""
        return Problem(problem_id or str(index), question, gold, subset or None)

    return collect(rows, make, where)


def collect(
    rows: Iterable[tuple[str, Row]], make: Callable[[int, str, Row], Problem], where: str
) -> list[Problem]:
    """Make a problem of each row.

    Args:
        rows: pairs of the row's place, for example ``line 3``, and the row.
        make: gets the row's number from 0, its place and the row.
        where: the source, for messages.

    Raises:
        UserError: no rows, or a doubled id, with the place; or what ``make`` raises.
    """
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for index, (place, row) in enumerate(rows):
        problem = make(index, place, row)
        if problem.problem_id in seen:
            raise UserError(
                f"{where} has the problem {problem.problem_id!r} twice, at "
                f"{seen[problem.problem_id]} and at {place}; remove one or give it another id."
            )
        seen[problem.problem_id] = place
        problems.append(problem)
    if not problems:
        raise UserError(f"{where} holds no problems; give a file with at least one.")
    return problems


def no_column(name: object, row: Row, at: str, like: str) -> UserError:
    """Return the error of a row that lacks a column.

    Args:
        name: the column.
        row: the row.
        at: its place, ``line 3 of file.jsonl``.
        like: which columns it should have.
    """
    return UserError(
        f"There is no column {name!s} at {at}, only {', '.join(map(str, row)) or 'nothing'}; its "
        f"columns have to be {like}."
    )


def _find(by_key: Mapping[str, str], wanted: tuple[str, ...]) -> str | None:
    return next((by_key[name] for name in wanted if name in by_key), None)


def _text(
    row: Row, by_key: Mapping[str, str], wanted: tuple[str, ...], *, what: str, at: str
) -> str:
    key = _find(by_key, wanted)
    if key is None:
        raise UserError(
            f"There is no {what} {at}, only {', '.join(map(str, row)) or 'nothing'}; name its "
            f"column {' or '.join(wanted[:2])}."
        )
    value = row[key]
    if isinstance(value, (list, dict, bool)):
        raise UserError(f"The {what} {at} is a {type(value).__name__}; give text or a number.")
    text = _plain(value).strip()
    if not text:
        raise UserError(f"The {what} {at} is empty; fill it in or remove it.")
    return text


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def read_file(path: Path) -> Iterator[tuple[str, Row]]:
    """Read a file's rows with their places.

    Raises:
        UserError: no such file, another format, or content that is not what its suffix says.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(
            f"{path} cannot be read as questions; give a file that ends in {', '.join(_SUFFIXES)}."
        )
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the source.")
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path)
        elif suffix == ".csv":
            yield from _read_csv(path)
        elif suffix == ".json":
            yield from _read_json(path)
        else:
            yield from _read_jsonl(path)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; convert it first.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    # Not splitlines: a question may hold U+2028, which is no line end in JSON.
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _row(_parse(line, path, f"line {number}"), path, f"line {number}")


def _read_json(path: Path) -> Iterator[tuple[str, Row]]:
    content = _parse(path.read_text(encoding="utf-8-sig"), path, "its content")
    if not isinstance(content, list):
        raise UserError(f"{path} is not a list of objects; write one object a problem in [ ].")
    for number, value in enumerate(content, start=1):
        yield _row(value, path, f"entry {number}")


def _parse(text: str, path: Path, place: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON at {place} ({error}); mend it.") from None


def _row(value: Any, path: Path, place: str) -> tuple[str, Row]:
    if not isinstance(value, dict):
        raise UserError(f"{path} has no object at {place}; write one object a problem.")
    return place, value


def _read_csv(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(
                        f"{path} has another number of fields than its header at {place}; mend it."
                    )
                yield place, row
        except csv.Error as error:
            raise UserError(f"{path} is not CSV at line {reader.line_num} ({error}).") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    # Only a parquet source pays for this import; see the registry.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        rows = pq.read_table(path, partitioning=None).to_pylist()
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a parquet file ({reason}).") from None
    yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _read_hub(benchmark: str, hub: HubSource) -> Iterator[tuple[str, Row]]:
    # datasets takes seconds to import and reads its settings from the environment when it does.
    import datasets  # noqa: PLC0415

    with from_hub(benchmark, hub.path):
        table = datasets.load_dataset(
            hub.path, name=hub.name, split=hub.split, revision=hub.revision
        )
    for number, row in enumerate(table, start=1):
        if hub.keep is None or hub.keep(row):
            yield f"row {number}", row


def read_hub_files(
    benchmark: str, repository: str, names: Sequence[str], revision: str
) -> Iterator[tuple[str, Row]]:
    """Read JSON-lines files of a dataset on the Hub, line by line, since they may be large.

    Raises:
        UserError: they cannot be had.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    for name in names:
        with from_hub(benchmark, repository):
            path = hf_hub_download(repository, name, repo_type="dataset", revision=revision)
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield f"line {number} of {name}", json.loads(line)


@contextlib.contextmanager
def from_hub(
    what: str, path: str, instead: str = "give a local file as its source"
) -> Iterator[None]:
    """Say in a sentence why something cannot be had from the Hub.

    Args:
        what: is loaded.
        path: where it lies there.
        instead: what a user may do.

    Raises:
        UserError: it cannot be had.
    """
    import httpx  # noqa: PLC0415

    try:
        yield
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise UserError(
            f"{what} could not be loaded from {path} on the Hub ({reason}); check the "
            f"network and the login, or {instead}."
        ) from error
