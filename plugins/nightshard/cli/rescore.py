"""``nightshard rescore``: judge stored answers again."""

import dataclasses
import json
import os
from typing import TYPE_CHECKING

import click

from nightshard.core.settings import Settings

if TYPE_CHECKING:
    from nightshard.results.rescore import Rescored

SHOWN = 20


@click.command()
@click.argument("run_keys", metavar="RUN...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all that changed.")
def rescore(*, run_keys: tuple[str, ...], as_json: bool) -> None:
    """Judge the stored answers of runs again; it needs no cluster.

    The database keeps the scores of other judge versions, and the run's folder `history` the
    earlier verdicts.
    """
    from nightshard.results.database import open_database
    from nightshard.results.rescore import rescore_run

    settings = Settings.from_env(os.environ)
    engine = open_database(settings.database_url)
    told = []
    for key in run_keys:
        done = rescore_run(engine, settings.store, key)
        if as_json:
            told.append(_as_dict(key, done))
        else:
            _say(key, done)
    if as_json:
        click.echo(json.dumps(told, indent=2))


def _as_dict(key: str, done: "Rescored") -> dict[str, object]:
    changed = [dataclasses.asdict(one) for one in done.changed]
    return {"run_key": key, "new": done.new, **done.card.to_dict(), "changed": changed}


def _say(key: str, done: "Rescored") -> None:
    judged = done.card.verdicts.num_rows
    if not done.new:
        click.echo(f"{key}: {judged} answers judged, all as before.")
        return
    click.echo(f"{key}: {judged} answers judged, {len(done.changed)} changed sides.")
    for one in done.changed[:SHOWN]:
        side = "right now" if one.correct else "wrong now"
        click.echo(
            f"  {one.benchmark} {one.problem_id}, repeat {one.repeat_idx + 1}: {side} "
            f"({one.reason}; before: {one.before})"
        )
    if len(done.changed) > SHOWN:
        click.echo(f"  and {len(done.changed) - SHOWN} more; --json lists all")
    for sentence in done.card.failures.values():
        click.secho(f"  {sentence}", fg="yellow")
