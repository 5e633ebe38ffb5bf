"""Finding the run that a person means: by key, by Airflow's id, by a beginning of either."""

import difflib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from nightshard.cli.api import AirflowApi
from nightshard.core.errors import UserError
from nightshard.core.run_params import make_run_key, run_key_digest

LATEST = "latest"
MOST_RUNS = 2000

RUN_HELP = "RUN is a run key, an Airflow run id, the beginning of either, or `latest`."

run_argument = click.argument("run", metavar="RUN")


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run under both of its names.

    Attributes:
        dag_run_id: Airflow's.
        run_key: Nightshard's; None where the run's params cannot tell.
        state: of the DAG run.
        digest: end of its run key; None where it cannot be told.
    """

    dag_run_id: str
    run_key: str | None
    state: str
    digest: str | None = None

    @classmethod
    def of(cls, run: Mapping[str, Any], deployment: str | None) -> "NamedRun":
        """Read a run of Airflow's REST API; the key follows from its params, id and start.

        Args:
            run: as Airflow tells it.
            deployment: id of the installation; without it there is no telling the key.
        """
        model = (run.get("conf") or {}).get("model")
        key = digest = None
        if deployment is not None:
            digest = run_key_digest(run["dag_run_id"], deployment)
        if isinstance(model, str) and run.get("run_after") and deployment is not None:
            started = datetime.fromisoformat(run["run_after"])
            key = make_run_key(model, run["dag_run_id"], started, deployment)
        return cls(run["dag_run_id"], key, run["state"], digest)

    @property
    def name(self) -> str:
        """What to call it."""
        return self.run_key or self.dag_run_id

    def has_key(self, key: str) -> bool:
        """Whether this is its run key, also where only its end can be compared."""
        if self.run_key is not None or self.digest is None:
            return key == self.run_key
        return key.endswith(f"-{self.digest}")

    def begins_with(self, text: str) -> bool:
        """Whether one of its names begins so."""
        return self.dag_run_id.startswith(text) or bool(
            self.run_key and self.run_key.startswith(text)
        )


def find_run(api: AirflowApi, name: str) -> NamedRun:
    """Find the run that a person means.

    Raises:
        UserError: none or several are named so; the sentence says which come close.
    """
    deployment = api.deployment()
    if name == LATEST:
        newest = api.run(api.newest_run())
        assert newest is not None  # noqa: S101 (it was listed a moment ago)
        return NamedRun.of(newest, deployment)
    exact = api.run(name)
    if exact is not None:
        return NamedRun.of(exact, deployment)
    runs = [NamedRun.of(run, deployment) for run in itertools.islice(api.runs(), MOST_RUNS)]
    return choose(runs, name)


def choose(runs: Iterable[NamedRun], name: str) -> NamedRun:
    """Choose among runs, the latest first; see :func:`find_run`."""
    known = list(runs)
    for run in known:
        if run.has_key(name):
            return run
    close = [run for run in known if name and run.begins_with(name)]
    if len(close) == 1:
        return close[0]
    if close:
        shown = ", ".join(run.name for run in close[:3])
        more = f" and {len(close) - 3} more" if len(close) > 3 else ""  # noqa: PLR2004
        raise UserError(f"Several runs begin with {name!r}: {shown}{more}; give more of the name.")
    if not known:
        raise UserError("The DAG 'evaluate' has not run yet; `nightshard launch` runs it.")
    names = [one for run in known for one in (run.run_key, run.dag_run_id) if one]
    guess = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {guess[0]}?" if guess else f"the latest is {known[0].name}."
    raise UserError(f"There is no run {name!r}; {hint}")


def rank_of(number: int, count: int) -> int:
    """Turn the number that people see into a rank.

    Raises:
        UserError: there is no such shard.
    """
    if not 1 <= number <= count:
        which = f"the shards are 1 to {count}" if count else "this run has no shards"
        raise UserError(f"There is no shard {number}; {which}.")
    return number - 1


shard_help = 'The number that people see, from 1: 3 for "shard 3 of 8" (its rank is 2).'
