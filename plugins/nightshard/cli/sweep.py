"""``nightshard sweep``: the same evaluation with several numbers of shards."""

import json
import os
import sys
import time
from typing import Any

import click
from rich.console import Console

from nightshard.cli.cluster import guide_page
from nightshard.cli.launch import check_params, launch_options, trigger
from nightshard.clusters import guide as guides
from nightshard.core.run_params import NOT_SWEPT
from nightshard.core.settings import Settings
from nightshard.core.task_states import RUN_ENDED

DAG_ID = "scaling_sweep"
POLL_S = 2.0


def _counts(_context: click.Context, _option: click.Parameter, value: str) -> list[int]:
    try:
        counts = sorted({int(one) for one in value.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 1:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 1,2,4,8.")
    return counts


@click.command()
@launch_options
@click.option("--shards", default="1,2,4,8", show_default=True, callback=_counts)
@click.option("--write", is_flag=True, help="Write the result into the cluster's page.")
def sweep(shards: list[int], write: bool, **values: Any) -> None:
    """Evaluate with each number of shards, compare, and recommend one.

    The options are those of `launch`; those on shards, reuse and publication do not count here.
    """
    from nightshard.cli.api import api_from_environment
    from nightshard.cli.local import local_api_access
    from nightshard.cli.watch import heard

    settings = Settings.from_env(os.environ)
    params = check_params(values, settings)
    console = Console()
    api = api_from_environment(local_api_access(settings)).of_dag(DAG_ID)
    asked = json.loads(params.model_dump_json(exclude=set(NOT_SWEPT)))
    run_id = trigger(api, {**asked, "shards": shards}, console)
    told: set[str] = set()
    while (state := heard(lambda: api.run_state(run_id))) not in RUN_ENDED:
        _tell(heard(lambda: api.task_instances(run_id)), told, console)
        time.sleep(POLL_S)
    if state == "failed":
        console.print(f"[red bold]The sweep failed.[/] Its logs: {api.page(run_id)}")
        sys.exit(1)
    report = heard(lambda: api.result(run_id, "report"))
    click.echo(report["text"])
    click.echo(f"Plots: {report['folder']}")
    if write:
        page = guide_page(settings, params.cluster)
        there = page.read_text("utf-8") if page.exists() else f"# {params.cluster}\n"
        text = f"## How many shards\n\n{report['text']}"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(guides.with_measurement(there, text), encoding="utf-8")
        click.echo(f"Wrote {page}")


def _tell(tasks: list[dict[str, Any]], told: set[str], console: Console) -> None:
    for one in tasks:
        name = f"{one.get('rendered_map_index')} {one['state']}"
        ended = one["task_id"] == "evaluate" and one["state"] in {"success", "failed"}
        if ended and name not in told:
            told.add(name)
            console.print(name, highlight=False)
