"""``nightshard results`` and ``nightshard db``: scores, where they come from, their database."""

import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from nightshard.cli.tables import Column, Row, one_line, standard_output, table
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from nightshard.results.records import AttemptRecord, ScoreRow, Trace, TracedShard

REVISION_SHOWN = 12
UNBOUNDED = 10_000


@click.command()
@click.option("--model", help="Only models whose name contains this.")
@click.option("--benchmark", help="Only this benchmark.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--run", "run_key", metavar="KEY", help="Only this run.")
@click.option("--trace", is_flag=True, help="With --run: from the score to the Slurm jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def results(
    *,
    model: str | None,
    benchmark: str | None,
    limit: int,
    run_key: str | None,
    trace: bool,
    as_json: bool,
) -> None:
    """List scores, the newest first, or trace a run's scores to their Slurm jobs."""
    from nightshard.results.database import open_database
    from nightshard.results.read import get_run, list_results

    if trace and run_key is None:
        raise click.UsageError("--trace follows one run: name it with --run KEY.")
    engine = open_database(_settings().database_url)
    if trace and run_key is not None:
        _show_trace(engine, run_key, as_json)
        return
    if run_key is not None:
        get_run(engine, run_key)
    found = list_results(engine, model, benchmark, limit + 1, run_key)
    rows = found[:limit]
    if as_json:
        click.echo(json.dumps([row.to_dict() for row in rows], indent=2))
        return
    console = standard_output()
    if rows:
        console.print(score_table(rows))
    else:
        console.print(_no_scores(engine, model, run_key), highlight=False, markup=False)
    if len(found) > limit:
        console.print(f"Older scores are left out; --limit shows more than {limit}.")


@click.group()
def db() -> None:
    """The results database (NIGHTSHARD_DB_URL)."""


@db.command()
def upgrade() -> None:
    """Create the tables, or bring them to this version; harmless where they are."""
    from nightshard.results.database import upgrade as upgrade_database

    state = upgrade_database(_settings().database_url)
    click.echo(f"The results database is up to date (revision {state.head}).")


@db.command()
def check() -> None:
    """Say whether the tables are those of this version; exit code 1 where they are not."""
    from nightshard.results.database import require_head

    state = require_head(_settings().database_url)
    click.echo(f"The results database is up to date (revision {state.head}).")


@db.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def export(path: Path) -> None:
    """Write all scores into FILE, a .parquet or .csv table with a row each."""
    from nightshard.results.database import open_database
    from nightshard.results.export import export_scores

    count = export_scores(open_database(_settings().database_url), path)
    click.echo(f"{count} scores written to {path}")


class ScoreTable:
    """Scores as a rich renderable: a line each where the width allows, else a table a run."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = table(_score_columns(self.rows), self.rows)
        if console.measure(whole, options=options.update(width=UNBOUNDED)).maximum <= (
            options.max_width
        ):
            yield whole
            return
        for number, (_, group) in enumerate(groupby(self.rows, key=_heading)):
            rows = list(group)
            heading = _heading(rows[0])
            if number:
                yield Text()
            if heading:
                yield Text(heading, style="bold")
            yield table([one for one in _score_columns(rows) if not one.of_run], rows)


def score_table(rows: "Iterable[ScoreRow | Row]") -> ScoreTable:
    """Draw scores.

    Args:
        rows: records, or mappings in the form of ``ScoreRow.to_dict()`` of which any key may be
            missing; ``accuracy`` serves where there is no ``value``. A column that no row knows
            anything of is left out.
    """
    return ScoreTable([row if isinstance(row, Mapping) else row.to_dict() for row in rows])


def _score_columns(rows: Sequence[Row]) -> list[Column]:
    only_accuracy = all(row.get("metric", "accuracy") == "accuracy" for row in rows)
    return [
        Column("Model", lambda row: one_line(row.get("model")), of_run=True),
        Column("Revision", _revision, of_run=True),
        Column("Benchmark", _benchmark),
        *([] if only_accuracy else [Column("Metric", lambda row: one_line(row.get("metric")))]),
        Column("Accuracy" if only_accuracy else "Score", _value, "right"),
        Column("95 % interval", _interval),
        Column("n", lambda row: one_line(row.get("n")), "right"),
        Column("Coverage", _coverage, "right"),
        Column("Shards", lambda row: one_line(row.get("num_shards", row.get("shards"))), "right"),
        Column("When (UTC)", lambda row: _when(row.get("when")), of_run=True),
        Column("Run", lambda row: one_line(row.get("run_key")), of_run=True),
    ]


def _heading(row: Row) -> str:
    when = _when(row.get("when"))
    parts = (
        one_line(row.get("model")),
        _revision(row),
        one_line(row.get("run_key")),
        f"{when} UTC" if when else "",
    )
    return "  ".join(part for part in parts if part)


def trace_view(found: "Trace", notes: Sequence[str] = ()) -> Group:
    """Draw the way down from the scores: run, fingerprint, answers, shard attempts.

    Args:
        found: the trace.
        notes: sentences to show at the answers.
    """
    run = found.run
    scores: list[Row] = [
        {field: getattr(metric, field) for field in metric.__dataclass_fields__}
        for metric in run.metrics
    ]
    tree = Tree(score_table(scores) if scores else Text("No scores yet"))
    model = run.model
    level = tree.add(
        Text(f"run {one_line(run.run_key)}: {one_line(run.status)} on {one_line(run.cluster)}")
    )
    level.add(
        Text(f"model {one_line(model.name)} at {one_line(model.revision)}: {one_line(model.path)}")
    )
    if run.dag_run_id is not None:
        level.add(Text(f"Airflow: {one_line(run.dag_id)}, {one_line(run.dag_run_id)}"))
    level = level.add(Text(f"fingerprint {one_line(run.fingerprint)}"))
    level = level.add(
        Text(
            f"answers {one_line(run.answers_url)}: {run.requests} needed, {run.reused} of them "
            "from earlier runs"
        )
    )
    for note in notes:
        level.add(Text(one_line(note)))
    level = level.add(Text(f"{len(found.shards)} finished shards"))
    for key in found.unknown:
        level.add(
            Text(
                f"The database does not know attempt {key.attempt} of shard {key.rank} of run "
                f"{one_line(key.run_key)}, which gave some of the answers."
            )
        )
    below: list[RenderableType] = []
    if found.shards:
        below += [Text(), _shard_table(found.shards, run.run_key)]
    if run.attempts:
        below += [Text(), _attempt_table(run.attempts), Text(_gpu_hours(run.attempts))]
    return Group(tree, *below)


def _show_trace(engine: "Engine", run_key: str, as_json: bool) -> None:
    from nightshard.results.read import get_run, trace
    from nightshard.results.store import read_shard_keys

    url = get_run(engine, run_key).answers_url
    notes = []
    sources = None
    if url is not None:
        try:
            sources = read_shard_keys(url)
        except UserError as error:
            # The database alone still leads to the run's own jobs.
            notes.append(str(error))
    found = trace(engine, run_key, sources)
    if as_json:
        click.echo(json.dumps({**found.to_dict(), "notes": notes}, indent=2))
    else:
        standard_output().print(trace_view(found, notes))


def _no_scores(engine: "Engine", model: str | None, run_key: str | None) -> str:
    from nightshard.results.read import get_run, list_runs

    if run_key is not None:
        run = get_run(engine, run_key)
        return f"Run {run_key} has no such scores; its status is {run.status}."
    latest = list_runs(engine, model, limit=1)
    if latest:
        return (
            f"There are no such scores; the latest run is {latest[0].run_key} of "
            f"{latest[0].model}, {latest[0].status}."
        )
    if list_runs(engine, limit=1):
        return f"There are no runs of a model whose name contains {model!r}."
    return "There are no scores yet; `nightshard launch` makes some."


def _shard_table(shards: "Sequence[TracedShard]", run_key: str) -> Table:
    rows: list[Row] = [
        {
            **{name: getattr(one.shard, name) for name in one.shard.__dataclass_fields__},
            "run_key": None if one.run_key == run_key else one.run_key,
            "answers": one.answers,
        }
        for one in shards
    ]
    columns = [
        Column("Earlier run", lambda row: one_line(row["run_key"])),
        Column("Shard", lambda row: str(row["rank"]), "right"),
        Column("Attempt", lambda row: str(row["attempt"]), "right"),
        Column("State", lambda row: one_line(row["state"])),
        Column("Cause", lambda row: one_line(row["cause"])),
        Column("Slurm job", _slurm_job),
        Column("Node", lambda row: one_line(row["node"])),
        Column("GPU", lambda row: one_line(row["gpu"])),
        Column("Answers", lambda row: one_line(row["answers"]), "right"),
        Column("Rows", lambda row: one_line(row["rows"]), "right"),
        Column("Errors", lambda row: one_line(row["errors"] or None), "right"),
        Column("Tokens", lambda row: one_line(row["output_tokens"]), "right"),
        Column("Load s", lambda row: _seconds(row["load_s"]), "right"),
        Column("Generate s", lambda row: _seconds(row["generate_s"]), "right"),
    ]
    return table(columns, rows)


def _attempt_table(attempts: "Sequence[AttemptRecord]") -> Table:
    rows: list[Row] = [
        {name: getattr(one, name) for name in one.__dataclass_fields__} for one in attempts
    ]
    columns = [
        Column("Shard", lambda row: str(row["rank"]), "right"),
        Column("Attempt", lambda row: str(row["attempt"]), "right"),
        Column("Ended", lambda row: one_line(row["state"]).replace("_", " ")),
        Column("Exit code", lambda row: one_line(row["exit_code"]), "right"),
        Column("Slurm job", lambda row: one_line(row["job_id"])),
        Column("Node", lambda row: one_line(row["node"])),
        Column("Answers by then", lambda row: str(row["done"]), "right"),
        Column("GPU s", lambda row: one_line(row["gpu_seconds"]), "right"),
        Column("Then", lambda row: one_line(row["decision"])),
        Column("Ended at (UTC)", lambda row: _when(row["ended_at"])),
    ]
    return table(columns, rows)


def _gpu_hours(attempts: "Sequence[AttemptRecord]") -> str:
    from nightshard.results.records import gpu_time

    spent = gpu_time(attempts)
    known = f"GPU hours: {spent.total / 3600:.2f}"
    if spent.wasted:
        known += f", {spent.wasted / 3600:.2f} of them in attempts that added no answer"
    if spent.unknown:
        known += f"; the run time of {spent.unknown} attempts is not known"
    return f"{known}."


def _revision(row: Row) -> str:
    return one_line(row.get("revision"))[:REVISION_SHOWN]


def _benchmark(row: Row) -> str:
    subset = one_line(row.get("subset"))
    return one_line(row.get("benchmark")) + (f", {subset}" if subset else "")


def _value(row: Row) -> str:
    value = row.get("value", row.get("accuracy"))
    if value is None:
        return ""
    stderr = row.get("stderr")
    return f"{value:.3f}" + (f" ± {stderr:.3f}" if stderr is not None else "")


def _interval(row: Row) -> str:
    low, high = row.get("ci_low"), row.get("ci_high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _coverage(row: Row) -> str:
    coverage = row.get("coverage")
    if coverage is None:
        return "partial" if row.get("partial") else ""
    # Rounded down: 999 of 1000 answers are not 100 %.
    shown = f"{int(coverage * 1000) / 10:g} %"
    return f"{shown}, partial" if row.get("partial") else shown


def _when(value: Any) -> str:
    if value is None:
        return ""
    moment = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M}"


def _slurm_job(row: Row) -> str:
    job, array = one_line(row["job_id"]), one_line(row["array_job_id"])
    return f"{job} ({array}_{row['rank']})" if job and array else job or array


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _settings() -> Settings:
    return Settings.from_env(os.environ)
