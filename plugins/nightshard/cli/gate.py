"""``nightshard gate``: is a run worse than its baseline?"""

import json
import os
import sys
from pathlib import Path

import click

from nightshard.core.settings import Settings

WORSE = 3
"""Exit code of a run that is worse; 1 is an error's and 2 a wrong option's."""


@click.command()
@click.argument("run_key", metavar="RUN")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML file with baseline, benchmarks and margin; the options beside it go first.",
)
@click.option("--baseline", help="previous (default), best, or the key of a run.")
@click.option("--margin", type=float, help="By how much a score may fall. Default: 0.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gate(
    *,
    run_key: str,
    policy_file: Path | None,
    baseline: str | None,
    margin: float | None,
    as_json: bool,
) -> None:
    """Compare RUN with a baseline, paired by problem; exit code 3 where it is worse.

    The baseline is the previous run of the same model, its best one, or the one that is named.
    """
    from nightshard.results.database import open_database
    from nightshard.results.gate import Policy, gate_policy
    from nightshard.results.gate import gate as judge

    settings = Settings.from_env(os.environ)
    policy = Policy.read(policy_file) if policy_file is not None else Policy()
    policy = gate_policy(policy, baseline=baseline, margin=margin)
    ruling = judge(open_database(settings.database_url), settings.store, run_key, policy)
    if as_json:
        click.echo(json.dumps(ruling.to_dict(), indent=2))
    else:
        beside = f" than {ruling.baseline}" if ruling.baseline else ""
        said = ruling.verdict if ruling.verdict == "cannot tell" else f"{ruling.verdict}{beside}"
        click.echo(f"{run_key}: {said}")
        for sentence in ruling.reasons:
            click.echo(f"  {sentence}")
    if ruling.verdict == "worse":
        sys.exit(WORSE)
