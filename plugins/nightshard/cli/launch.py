"""``nightshard launch``: start an evaluation and, on request, follow it."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from nightshard.benchmarks import registry
from nightshard.clusters.detect import AUTO, default_profile, profile_of_host
from nightshard.clusters.profile import load_named
from nightshard.core.errors import UserError
from nightshard.core.presets import OPTIMISE, PRESETS
from nightshard.core.run_params import RunParams, parse_run_params
from nightshard.core.settings import Settings

PARSE_TIMEOUT_S = 90


def split_tasks(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    """Turn names with commas between into a list."""
    return [name.strip() for name in value.split(",") if name.strip()]


def split_source(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Turn values ``BENCHMARK=FILE`` into absolute paths by benchmark.

    Raises:
        click.BadParameter: one has another form.
    """
    pairs = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator:
            raise click.BadParameter(f"{value!r} is not of the form BENCHMARK=FILE.")
        pairs[name] = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111
    return pairs


def _parse_json(_context: click.Context, _option: click.Parameter, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not JSON: {error}.") from None


class ShardCount(click.ParamType[int | str]):
    """A number of shards, or ``auto``."""

    name = "N|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """See :class:`click.ParamType`."""
        return "auto" if value == "auto" else int(click.INT.convert(value, param, ctx))


def _chosen_cluster(_context: click.Context, _option: click.Parameter, value: str | None) -> str:
    """Name the cluster of a run that names none."""
    return value or cluster_here(Settings.from_env(os.environ))


def cluster_here(settings: Settings) -> str:
    """Return the profile of the login node on which this runs, else the default one."""
    here = profile_of_host(settings.clusters, socket.getfqdn(), settings.variables(os.environ))
    return here or default_profile(settings.clusters, settings.cluster)


def launch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that describe an evaluation; the names are those of the params form."""
    options = [
        click.option(
            "--model-name", "model", required=True, help="Folder on the cluster or Hub id."
        ),
        click.option("--revision", help="Branch, tag or commit of a Hub model."),
        click.option("--adapter", help="A LoRA adapter: a folder there, or org/name@revision."),
        click.option(
            "--tasks",
            callback=split_tasks,
            default="Starter",
            show_default=True,
            help="Benchmarks, separated by commas.",
        ),
        click.option(
            "--preset", type=click.Choice([*PRESETS]), help="A set of benchmarks for --tasks."
        ),
        click.option(
            "--num-shards",
            type=ShardCount(),
            help="A number, or auto: by what earlier runs took. Default: the cluster profile's.",
        ),
        click.option(
            "--optimise",
            type=click.Choice([*OPTIMISE]),
            help="What --num-shards auto looks at. Default: balanced.",
        ),
        click.option(
            "--cluster",
            callback=_chosen_cluster,
            help="A cluster profile, or auto: the one that starts first. Default: that of this "
            "login node, else NIGHTSHARD_CLUSTER, else local.",
        ),
        click.option(
            "--max-job-duration",
            "max_job_hours",
            type=float,
            help="Time limit of a shard, in hours.",
        ),
        click.option("--temperature", type=float, help="0 is greedy."),
        click.option("--top-p", type=float, help="Probability mass kept."),
        click.option("--max-tokens", type=int, help="Longest answer, in tokens."),
        click.option("--repeats", type=int, help="How often each problem is asked."),
        click.option("--seed", type=int, default=0, show_default=True, help="Base of the seeds."),
        click.option(
            "--system-prompt",
            "--system-instruction",
            "system_prompt",
            help="Put before each question.",
        ),
        click.option(
            "--chat-template-args",
            callback=_parse_json,
            default="{}",
            metavar="JSON",
            help="Variables for the chat template, such as '{\"enable_thinking\": false}'.",
        ),
        click.option(
            "--balance",
            type=click.Choice(["steal", "static"]),
            help="Whether shards take over each other's questions. Default: the profile's.",
        ),
        click.option("--limit", type=int, help="Only the first n problems of each benchmark."),
        click.option(
            "--source",
            multiple=True,
            callback=split_source,
            metavar="BENCHMARK=FILE",
            help="A local file of questions in place of the Hub; may be given several times.",
        ),
        click.option("--logprobs", is_flag=True, help="Keep log-probabilities of tokens."),
        click.option("--force", is_flag=True, help="Generate again what exists."),
        click.option(
            "--dry-run", is_flag=True, help="Say what would run and what it costs; submit nothing."
        ),
        click.option(
            "--gate", help="previous, best or a policy of include/gates. Default: no gate."
        ),
        click.option(
            "--publish",
            type=click.Choice(["hub", "folder", "no"]),
            help="Default: to the Hub where Airflow's connection nightshard_hub exists.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def check_params(values: Mapping[str, Any], settings: Settings) -> RunParams:
    """Check an evaluation's parameters before Airflow hears of them.

    Raises:
        UserError: one sentence on what cannot be used.
    """
    params = parse_run_params(values)
    for task in params.tasks:
        registry.info(task)
    if params.cluster != AUTO:
        load_named(settings.clusters, params.cluster, settings.variables(os.environ))
    return params


@click.command()
@launch_options
@click.option("--watchdog", is_flag=True, help="Follow the run and end with its scores.")
def launch(watchdog: bool, **values: Any) -> None:
    """Evaluate a checkpoint: trigger the DAG `evaluate` over Airflow's REST API."""
    from nightshard.cli.api import api_from_environment
    from nightshard.cli.local import local_api_access

    settings = Settings.from_env(os.environ)
    params = check_params(values, settings)
    console = Console()
    api = api_from_environment(local_api_access(settings))
    run_id = trigger(api, json.loads(params.model_dump_json()), console)
    if not watchdog and not params.dry_run:
        console.print(f"Running; follow it at {api.page(run_id)}", highlight=False, soft_wrap=True)
        return
    summary = watch(api, run_id, console)
    if summary is None:
        sys.exit(1)
    if summary:
        click.echo(closing_line(summary))


def trigger(api: Any, conf: Mapping[str, Any], console: Console) -> str:
    """Wait until Airflow knows the DAG, then start a run and return its id.

    Raises:
        UserError: the DAG does not appear, or Airflow refuses the params.
    """
    deadline = time.monotonic() + PARSE_TIMEOUT_S
    while not api.dag_exists():
        if time.monotonic() > deadline:
            errors = api.import_errors()
            raise UserError(
                f"Airflow does not know the DAG {api.dag_id!r}; check that its dags folder is this "
                "project's dags/." + (f"\n{errors[0]}" if errors else "")
            )
        time.sleep(1)
    run_id: str = api.trigger(conf)
    console.print(f"Started [bold]{run_id}[/] of the DAG {api.dag_id}", highlight=False)
    return run_id


def watch(api: Any, run_id: str, console: Console) -> dict[str, Any] | None:
    """Follow a run; print its scores, or why it failed.

    Returns:
        What the task ``record`` returned, empty for a dry run, None where the run ended without
        scores.
    """
    from nightshard.cli.results import score_table
    from nightshard.cli.watch import failure_sentences, follow, heard

    if follow(api, run_id, console) == "failed":
        console.print("[red bold]The run failed.[/]")
        for sentence in heard(lambda: failure_sentences(api, run_id)):
            console.print(f"  {sentence}", highlight=False, markup=False)
        console.print(f"  Its logs: {api.page(run_id)}", highlight=False, soft_wrap=True)
        scored = heard(lambda: api.result(run_id, "record"))
        if scored is not None:  # what failed came after the scores: gate or publication
            console.print(score_table(scored["scores"]))
        return None
    summary: dict[str, Any] | None = heard(lambda: api.result(run_id, "record"))
    if summary is None and (preview := heard(lambda: api.preview(run_id))) is not None:
        click.echo(preview["text"])
        return {}
    if summary is None:
        # A person has marked the run or its tasks as successful.
        console.print("[red bold]The run ended without scores.[/]")
        console.print(f"  Its logs: {api.page(run_id)}", highlight=False, soft_wrap=True)
        return None
    if summary["submitted"] == 0:
        console.print(
            f"All {summary['requests']} answers exist already; nothing was generated again "
            "(--force generates them anew)."
        )
    elif summary["reused"]:
        console.print(f"{summary['reused']} of {summary['requests']} answers existed already.")
    console.print(score_table(summary["scores"]))
    for sentence in summary["failures"].values():
        console.print(f"[red]Not scored:[/] {escape(sentence)}", highlight=False)
    return summary


def closing_line(summary: Mapping[str, Any]) -> str:
    """Render a run's last line, made to be read by scripts as well.

    Returns:
        ``nightshard: run KEY scored Starter accuracy=0.350 n=60 shards=2 wall=75s``; several
        benchmarks follow each other before ``shards=``.
    """
    scores = " ".join(
        f"{score['benchmark']} accuracy={score['accuracy']:.3f} n={score['n']}"
        for score in summary["scores"]
    )
    return (
        f"nightshard: run {summary['run_key']} scored {scores} "
        f"shards={summary['shards']} wall={summary['wall_seconds']:.0f}s"
    )
