"""Judging stored answers again: the tasks of ``rescore``."""

import logging
from collections.abc import Sequence
from dataclasses import asdict

from nightshard.core.errors import UserError
from nightshard.orchestration.steps import Json, current_settings
from nightshard.results import rescore
from nightshard.results.database import open_database
from nightshard.results.read import get_run, runs_with

SHOWN = 50

log = logging.getLogger(__name__)


def chosen_runs(run_keys: Sequence[str], benchmark: str | None) -> list[str]:
    """Return the runs that were named, or those that asked a benchmark.

    Raises:
        UserError: none or both were given, one is not known, or there are none.
    """
    engine = open_database(current_settings().database_url)
    if bool(run_keys) == bool(benchmark):
        raise UserError("Give runs or a benchmark, one of the two.")
    if benchmark:
        found = runs_with(engine, benchmark)
        if not found:
            raise UserError(f"No run in the database has scores of {benchmark!r}.")
        return found
    for key in run_keys:
        get_run(engine, key)
    return list(dict.fromkeys(run_keys))


def rescore_run(run_key: str) -> Json:
    """Judge one run again and record its scores.

    Returns:
        ``run_key``, ``new`` (whether anything is), ``judged``, ``changed`` (how many answers
        changed sides), ``examples`` of them, and ``failures`` by benchmark.

    Raises:
        UserError: the run is not known, or its answers are not in the store.
    """
    settings = current_settings()
    done = rescore.rescore_run(open_database(settings.database_url), settings.store, run_key)
    judged = done.card.verdicts.num_rows
    log.info("%s: %d answers judged, %d changed sides", run_key, judged, len(done.changed))
    for one in done.changed[:SHOWN]:
        side = "right" if one.correct else "wrong"
        log.info("%s %s: %s now (%s)", one.benchmark, one.problem_id, side, one.reason)
    return {
        "run_key": run_key,
        "new": done.new,
        "judged": judged,
        "changed": len(done.changed),
        "examples": [asdict(one) for one in done.changed[:SHOWN]],
        "failures": dict(done.card.failures),
    }
