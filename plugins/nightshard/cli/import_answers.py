"""``nightshard import``: score answers that Evalchemy left."""

import os
from pathlib import Path

import click

from nightshard.cli.launch import split_source, split_tasks
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings


@click.command("import")
@click.argument("answers", metavar="ANSWERS")
@click.option("--model", required=True, help="Name of the model that gave them.")
@click.option(
    "--tasks",
    callback=split_tasks,
    default="",
    help="Only these tasks, with commas between; by default all that the rows name.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    callback=split_source,
    metavar="BENCHMARK=FILE",
    help="Take a benchmark's questions from a file.",
)
def import_answers(*, answers: str, model: str, tasks: list[str], sources: dict[str, str]) -> None:
    """Take over answers in Evalchemy's schema and score them; it needs no cluster.

    ANSWERS is a folder of .parquet files, or a dataset of the Hub. They become a run like any
    other: `results`, `compare` and `rescore` know it.
    """
    from nightshard.benchmarks import registry
    from nightshard.cli.results import score_table
    from nightshard.cli.tables import standard_output
    from nightshard.results.database import open_database
    from nightshard.results.precomputed import match, read_rows, take_over
    from nightshard.results.read import list_results

    table = read_rows(_folder(answers))
    named = list(dict.fromkeys(map(str, table.column("task_name").to_pylist())))
    wanted = tasks or named
    if absent := [one for one in wanted if one not in named]:
        raise UserError(f"{answers} has no task {absent[0]!r}, only {', '.join(named)}.")
    benchmarks = {name: registry.get(name) for name in wanted}
    problems = {name: one.load(sources.get(name)) for name, one in benchmarks.items()}
    matched = match(table.to_pylist(), benchmarks, problems)
    settings = Settings.from_env(os.environ)
    engine = open_database(settings.database_url)
    key, done = take_over(engine, settings.store, matched, model=model, source=answers)
    click.echo(f"{key}: {done.card.verdicts.num_rows} answers judged.")
    for name, count in matched.strangers.items():
        sentence = f"{name}: {count} rows show none of its questions and do not count"
        click.secho(f"  {sentence}", fg="yellow")
    for sentence in done.card.failures.values():
        click.secho(f"  {sentence}", fg="yellow")
    standard_output().print(score_table(list_results(engine, run_key=key)))


def _folder(answers: str) -> Path:
    path = Path(answers).expanduser()
    if path.is_dir():
        return path
    if answers.startswith(("/", ".", "~")):
        raise UserError(f"There is no folder {answers}; check the path.")
    from huggingface_hub import snapshot_download

    from nightshard.benchmarks.sources import from_hub

    with from_hub("The answers", answers, "name a folder"):
        return Path(snapshot_download(answers, repo_type="dataset", allow_patterns="*.parquet"))
