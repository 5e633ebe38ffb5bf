"""The leaderboard: checkpoints beside benchmarks, and curves over training steps."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import sqlalchemy as sa

from nightshard.results.read import WHEN_RUN
from nightshard.results.tables import Metric, Model, Run

ACCURACY = "accuracy"
MODEL, WHEN, MEAN, STEP = "model", "when", "mean", "step"
"""What a board can be sorted by, beside each of its benchmarks."""

Show = Literal["all", "latest", "best"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One score on the board.

    Attributes:
        run_key: the run that scored it.
        value: of the board's metric.
        ci_low: lower end of the 95 % interval, None where it is not known; ``ci_high`` the upper.
        n: problems.
        coverage: share of the expected answers that exist.
        partial: it was accepted with answers missing.
    """

    run_key: str
    value: float
    ci_low: float | None
    ci_high: float | None
    n: int
    coverage: float
    partial: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint.

    Attributes:
        model: its name.
        revision: of its weights.
        family: what the checkpoints of its training share, None where that is not known.
        step: of its training.
        when: end of its latest run.
        run_key: of that run.
        gate: what a gate said of that run, None where none was asked.
        cells: by benchmark.
    """

    model: str
    revision: str
    family: str | None
    step: int | None
    when: datetime.datetime
    run_key: str
    gate: str | None
    cells: dict[str, Cell]

    def mean(self, benchmarks: Sequence[str]) -> float | None:
        """Return the plain mean over benchmarks, None where a score of one of them is missing."""
        found = [self.cells[name].value for name in benchmarks if name in self.cells]
        return sum(found) / len(found) if found and len(found) == len(benchmarks) else None


@dataclass(frozen=True, slots=True)
class Board:
    """Checkpoints beside benchmarks.

    Attributes:
        metric: what its cells show.
        benchmarks: its columns, in order.
        rows: its checkpoints.
        total: number of checkpoints before it was cut into pages.
    """

    metric: str
    benchmarks: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int


@dataclass(frozen=True, slots=True)
class View:
    """How a board is looked at.

    Attributes:
        model: part of the name of the model or its family, in any case; empty for all.
        benchmarks: columns; empty for all.
        show: every checkpoint, the latest of each family, or the best one.
        sort: ``model``, ``when``, ``mean``, ``step`` or a benchmark.
        descending: the greatest first. What has no value always comes last.
        page: from 1.
        size: rows of a page.
    """

    model: str = ""
    benchmarks: tuple[str, ...] = ()
    show: Show = "all"
    sort: str = WHEN
    descending: bool = True
    page: int = 1
    size: int = 100


def read_board(engine: sa.Engine, metric: str = ACCURACY) -> Board:
    """Read each checkpoint's latest score on each benchmark, the newest checkpoint first.

    Of a score that several judge versions gave, the one recorded last counts.
    """
    newest = (
        sa.func.row_number()
        .over(
            partition_by=(Run.model_id, Metric.benchmark),
            order_by=(WHEN_RUN.desc(), Run.run_key.desc(), Metric.id.desc()),
        )
        .label("newest")
    )
    inner = (
        sa.select(Metric.id, newest)
        .join(Run, Metric.run_id == Run.id)
        .where(Metric.metric == metric, Metric.subset == "")
        .subquery()
    )
    statement = (
        sa.select(
            Model.id,
            Model.name,
            Model.revision,
            Model.family,
            Model.step,
            WHEN_RUN,
            Run.run_key,
            Run.gate,
            Metric.benchmark,
            Metric.value,
            Metric.ci_low,
            Metric.ci_high,
            Metric.n,
            Metric.coverage,
            Metric.partial,
        )
        .join(inner, sa.and_(inner.c.id == Metric.id, inner.c.newest == 1))
        .join(Run, Metric.run_id == Run.id)
        .join(Model, Run.model_id == Model.id)
        .order_by(WHEN_RUN.desc(), Run.run_key.desc(), Metric.id)
    )
    rows: dict[str, Row] = {}
    benchmarks: dict[str, None] = {}
    with engine.connect() as connection:
        for (
            model_id,
            name,
            revision,
            family,
            step,
            ended,
            key,
            gate,
            benchmark,
            *cell,
        ) in connection.execute(statement):
            row = rows.get(model_id)
            if row is None:
                said = gate["verdict"] if gate else None
                row = Row(name, revision, family, step, ended, key, said, {})
                rows[model_id] = row
            row.cells[benchmark] = Cell(key, *cell)
            benchmarks[benchmark] = None
    return Board(metric, tuple(sorted(benchmarks)), tuple(rows.values()), len(rows))


def metric_names(engine: sa.Engine) -> list[str]:
    """Return every metric that any whole benchmark has, accuracy first."""
    statement = sa.select(Metric.metric).where(Metric.subset == "").distinct()
    with engine.connect() as connection:
        return sorted(connection.scalars(statement), key=lambda name: (name != ACCURACY, name))


def arrange(board: Board, view: View) -> Board:
    """Choose columns and rows, sort them and cut out a page; pure."""
    chosen = tuple(name for name in board.benchmarks if name in view.benchmarks)
    columns = chosen or board.benchmarks
    rows = [
        row
        for row in board.rows
        if row.cells.keys() & set(columns)
        and any(view.model.lower() in name.lower() for name in (row.model, row.family or ""))
    ]
    if view.show != "all":
        rows = _one_each(rows, view.show, columns)
    rows = _sorted(rows, view, columns)
    first = (view.page - 1) * view.size
    return replace(
        board, benchmarks=columns, rows=tuple(rows[first : first + view.size]), total=len(rows)
    )


def _one_each(rows: Iterable[Row], show: Show, columns: Sequence[str]) -> list[Row]:
    """Keep one checkpoint of each family, or of each model where no family is known."""
    best: dict[str, Row] = {}
    for row in rows:
        family = row.family or row.model
        if family not in best or _standing(row, show, columns) > _standing(
            best[family], show, columns
        ):
            best[family] = row
    return list(best.values())


def _standing(row: Row, show: Show, columns: Sequence[str]) -> tuple[float, ...]:
    if show == "latest":
        return (row.step if row.step is not None else -1, row.when.timestamp())
    found = [row.cells[name].value for name in columns if name in row.cells]
    return (len(found), sum(found))


def _sorted(rows: list[Row], view: View, columns: Sequence[str]) -> list[Row]:
    def key(row: Row) -> float | str | None:
        if view.sort == MODEL:
            return row.model.lower()
        if view.sort == WHEN:
            return row.when.timestamp()
        if view.sort == STEP:
            return row.step
        if view.sort == MEAN:
            return row.mean(columns)
        cell = row.cells.get(view.sort)
        return None if cell is None else cell.value

    with_key = [(key(row), row) for row in rows]
    known = [one for one in with_key if one[0] is not None]
    # Python's sort is stable, and the board comes newest first.
    known.sort(key=lambda one: one[0], reverse=view.descending)  # type: ignore[arg-type, return-value]
    return [row for _, row in known] + [row for value, row in with_key if value is None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over the training steps of a family of checkpoints.

    Attributes:
        family: of checkpoints.
        benchmark: registry name.
        points: step and score, in the order of steps.
    """

    family: str
    benchmark: str
    points: tuple[tuple[int, Cell], ...]


def families(board: Board) -> list[str]:
    """Return the families with scores at two steps or more."""
    steps: dict[str, set[int]] = {}
    for row in board.rows:
        if row.family is not None and row.step is not None:
            steps.setdefault(row.family, set()).add(row.step)
    return sorted(family for family, its in steps.items() if len(its) > 1)


def curves(board: Board, family: str, benchmarks: Sequence[str] = ()) -> list[Curve]:
    """Return a family's curves; of two revisions at one step the newer one counts."""
    found = []
    for name in board.benchmarks:
        if benchmarks and name not in benchmarks:
            continue
        points: dict[int, Cell] = {}
        for row in board.rows:  # newest first
            if row.family == family and row.step is not None and name in row.cells:
                points.setdefault(row.step, row.cells[name])
        if points:
            found.append(Curve(family, name, tuple(sorted(points.items()))))
    return found
