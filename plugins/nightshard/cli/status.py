"""``nightshard status``: how far a run is, in one screen."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nightshard.cli.api import AirflowApi, NoSuchError
from nightshard.cli.runs import RUN_HELP, NamedRun, find_run, run_argument
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.core.task_states import SHARD_TASK

STEPS = (
    "plan",
    "prepare_dataset",
    "stage",
    "submit_shards",
    SHARD_TASK,
    "collect",
    "merge",
    "score",
    "record",
)
_COLOURS = {
    "success": "green",
    "done": "green",
    "running": "cyan",
    "deferred": "cyan",
    "failed": "red",
    "upstream_failed": "red",
    "up_for_retry": "yellow",
    "waiting": "yellow",
}


@click.command(help=f"Show how far a run is: its steps, and each shard on the cluster. {RUN_HELP}")
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(run: str, as_json: bool) -> None:
    """Show how far a run is."""
    from nightshard.cli.api import api_from_environment
    from nightshard.cli.local import local_api_access

    api = api_from_environment(local_api_access(Settings.from_env(os.environ)))
    told = gather(api, find_run(api, run))
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    show(told, Console())


def gather(api: AirflowApi, run: NamedRun) -> dict[str, Any]:
    """Ask Airflow for a run's steps, and Nightshard's pages for its shards."""
    tasks = api.task_instances(run.dag_run_id)
    complaint = None
    try:
        found = api.shards(run.dag_run_id)
    except NoSuchError as error:
        found, complaint = {}, str(error)
    except UserError as error:
        found, complaint = {}, str(error)
    shards = found.get("shards") or _bare_shards(tasks)
    return {
        "run_key": found.get("run_key") or run.run_key,
        "dag_run_id": run.dag_run_id,
        "state": run.state,
        "model": found.get("model"),
        "cluster": found.get("cluster"),
        "url": api.page(run.dag_run_id),
        "complaint": complaint or found.get("complaint"),
        "submitted_at": found.get("submitted_at"),
        "steps": list(_steps(tasks)),
        "shards": shards,
        "totals": totals(shards),
    }


def _bare_shards(tasks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what Airflow alone knows of the shards."""
    mapped = [one for one in tasks if one["task_id"] == SHARD_TASK and one["map_index"] >= 0]
    return [
        {
            "rank": one["map_index"],
            "number": one["map_index"] + 1,
            "count": len(mapped),
            "task_state": one["state"],
            "try_number": one["try_number"],
            "attempts": [],
            "message": "",
        }
        for one in sorted(mapped, key=lambda one: int(one["map_index"]))
    ]


def _steps(tasks: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    known = {one["task_id"]: one for one in tasks if one["task_id"] != SHARD_TASK}
    for name in [*STEPS, *sorted(set(known) - set(STEPS))]:
        if name in known:
            one = known[name]
            yield {
                "step": name,
                "state": one["state"],
                "seconds": one.get("duration"),
                "tries": one["try_number"],
            }


def totals(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add the shards up."""
    rates = [one.get("tokens_per_s") or 0 for one in shards if word_of(one) == "running"]
    return {
        "shards": len(shards),
        "done": sum(word_of(one) == "done" for one in shards),
        "running": sum(word_of(one) == "running" for one in shards),
        "waiting": sum(word_of(one) == "waiting" for one in shards),
        "failed": sum(word_of(one) == "failed" for one in shards),
        "answers": sum(one.get("done") or 0 for one in shards),
        "rows": sum(one.get("rows") or 0 for one in shards),
        "tokens_per_s": sum(rates),
    }


def word_of(shard: Mapping[str, Any]) -> str:
    """Say in one word how a shard is: done, failed, running, waiting or what Slurm says."""
    if shard["task_state"] == "success":
        return "done"
    if shard["task_state"] in {"failed", "upstream_failed"}:
        return "failed"
    state = shard.get("state")
    if state == "ended_well":
        return "done"
    return str(state or shard["task_state"] or "not begun").replace("_", " ")


def show(told: Mapping[str, Any], console: Console) -> None:
    """Print a run for a person."""
    about = " · ".join(
        str(one) for one in (told["model"], told["cluster"], told["dag_run_id"]) if one
    )
    console.print(
        f"[bold]{escape(told['run_key'] or told['dag_run_id'])}[/]  {coloured(told['state'])}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"[dim]{escape(about)}\n{told['url']}[/]", highlight=False, soft_wrap=True)
    console.print("  ".join(_step(one) for one in told["steps"]), highlight=False)
    if told["complaint"]:
        console.print(f"[yellow]{escape(told['complaint'])}[/]", highlight=False)
    if told["shards"]:
        console.print(_table(told["shards"]))
        console.print(_sum(told["totals"]), highlight=False)


def _step(step: Mapping[str, Any]) -> str:
    took = f" [dim]{step['seconds']:.1f} s[/]" if step["seconds"] else ""
    tries = f" [dim](try {step['tries']})[/]" if (step["tries"] or 0) > 1 else ""
    # Steps may be broken apart at the end of a line, a step itself not.
    text = f"{step['step']} {coloured(step['state'] or '-')}{took}{tries}"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def coloured(state: str) -> str:
    """Return a state as markup in its colour."""
    colour = _COLOURS.get(state)
    return f"[{colour}]{escape(state)}[/]" if colour else escape(state)


def _table(shards: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("shard", "state", "Slurm job", "node"):
        table.add_column(name, no_wrap=True)
    for name in ("answers", "tok/s", "attempts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for one in shards:
        done, rows = one.get("done"), one.get("rows")
        rate = one.get("tokens_per_s") if word_of(one) == "running" else None
        table.add_row(
            f"{one['number']} of {one['count']}",
            coloured(word_of(one)),
            one.get("job_id") or "-",
            one.get("node") or "-",
            f"{done or 0:,} of {rows:,}" if rows is not None else "-",
            f"{rate:,}" if rate else "-",
            str(len(one["attempts"]) or "-"),
            escape(one["message"] or ""),
        )
    return table


def _sum(total: Mapping[str, Any]) -> str:
    words = [f"{total['done']} of {total['shards']} shards done"]
    words += [f"{total[name]} {name}" for name in ("running", "waiting", "failed") if total[name]]
    if total["rows"]:
        words.append(f"{total['answers']:,} of {total['rows']:,} answers")
    if total["tokens_per_s"]:
        words.append(f"{total['tokens_per_s']:,} tok/s")
    return ", ".join(words)
