"""Finding new checkpoints and deciding what to evaluate: the DAGs ``nightly`` and ``arrivals``."""

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nightshard.checkpoints.config import (
    FolderSource,
    HubSource,
    Nightly,
    NightlyConfig,
    SourceConfig,
    read_nightly,
)
from nightshard.checkpoints.found import (
    Found,
    Interval,
    Source,
    SourceError,
    as_utc,
    evaluation,
    evaluation_run_id,
    in_order,
)
from nightshard.clusters.errors import TransportError
from nightshard.core.errors import UserError
from nightshard.core.hashing import content_id
from nightshard.orchestration.steps import Json, current_settings, profile_named

log = logging.getLogger(__name__)

A_DAY = timedelta(days=1)


def current_nightly() -> Nightly:
    """Read the group's ``nightly.yaml``."""
    settings = current_settings()
    return read_nightly(settings.nightly, settings.variables(os.environ))


def interval_asked(
    since: str | None, until: str | None, start: datetime | None, end: datetime | None
) -> Interval:
    """Return the interval of a run.

    Args:
        since: typed into the form; it goes before the schedule's.
        until: as ``since``.
        start: of the schedule's interval, None for a run by hand without a date.
        end: of the schedule's interval.

    Raises:
        UserError: one of them is no time, or the end lies before the start.
    """
    last = _instant("until", until) or end or datetime.now(UTC)
    first = _instant("since", since) or (start if until is None else None) or last - A_DAY
    if first >= last:
        raise UserError(f"since ({first:%Y-%m-%d %H:%M}) must lie before until; correct one.")
    return Interval(as_utc(first), as_utc(last))


def _instant(name: str, text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError:
        raise UserError(f"{name} is {text!r}; give a time such as 2026-01-31T02:00Z.") from None


def find(name: str, interval: Interval) -> list[Json]:
    """Return what a source found in an interval; say in the log what it left out.

    Raises:
        SourceError: it could not be asked.
        UserError: it cannot be used as it is configured.
    """
    config = current_nightly().required()
    source = config.sources[name]
    try:
        report = _source(source, config, name).find(interval)
    except TransportError as error:
        raise SourceError(f"The source {name} cannot be reached: {error}") from None
    for remark in report.remarks:
        log.info("%s", remark)
    span = f"between {interval.start:%Y-%m-%d %H:%M} and {interval.end:%Y-%m-%d %H:%M} UTC"
    count = f"{len(report.found)} new" if report.found else "nothing new"
    log.info("%s: %s %s", name, count, span)
    return [
        {"source": name, "priority": source.priority, "found": one.to_dict()}
        for one in report.found
    ]


def _source(source: SourceConfig, config: NightlyConfig, name: str) -> Source:
    # Each needs packages that the others do not.
    if isinstance(source, HubSource):
        from nightshard.checkpoints.hub import Hub
        from nightshard.orchestration.connections import hub_client

        return Hub(source, hub_client())
    if isinstance(source, FolderSource):
        from nightshard.checkpoints.folder import PROGRAM, Folder
        from nightshard.clusters.remote_python import run_worker_python
        from nightshard.orchestration.connections import open_transport

        profile = profile_named(str(config.asked_of(name)["cluster"]))

        async def ask(pattern: str, marker: str) -> str:
            async with open_transport(profile) as transport:
                arguments = ["-", pattern, marker]
                done = await run_worker_python(transport, profile, arguments, stdin=PROGRAM)
                return done.stdout

        return Folder(source, ask, asyncio.run)
    from nightshard.checkpoints.table import Table

    return Table(source)


def choose(found: Iterable[Mapping[str, Any]], cluster: str, asked_by: str) -> list[Json]:
    """Return the evaluations that go to a cluster, in the order in which they should start.

    Args:
        found: what :func:`find` returned of all sources.
        cluster: name of a profile.
        asked_by: ``<DAG id>/<run id>``.

    Returns:
        ``conf`` and ``trigger_run_id`` of a run of ``evaluate`` each, none of them twice.
    """
    config = current_nightly().required()
    by_source = {content_id(dict(one)): one for one in found}
    ordered = in_order(
        (one["priority"], _of_source(Found.from_dict(one["found"]), one["source"], config))
        for one in by_source.values()
    )
    return _runs((one for _, one in ordered), cluster, asked_by)


def _of_source(found: Found, source: str, config: NightlyConfig) -> Found:
    return replace(found, params={**config.asked_of(source), **found.params})


def choose_announced(
    extras: Iterable[Mapping[str, Any]], cluster: str, asked_by: str
) -> list[Json]:
    """Return the evaluations of checkpoints that asset events announce.

    Args:
        extras: of the events: ``model``, and any other parameter of ``evaluate``.
        cluster: as for :func:`choose`.
        asked_by: as for :func:`choose`.

    Raises:
        UserError: an event names no model, or no cluster is known for it.
    """
    config = current_nightly().config or NightlyConfig(evaluate=default_evaluation())
    found = []
    for extra in extras:
        asked = {name: value for name, value in extra.items() if name not in _NOT_ASKED}
        model, revision = asked.pop("model", None), asked.pop("revision", None)
        if not model:
            raise UserError("An event announces no model; give its extra a key model.")
        params = {**config.evaluate, **asked}
        if not params.get("cluster"):
            raise UserError(f"No cluster is known for {model}; name it in the event's extra.")
        version = str(extra.get("version") or content_id([model, revision]))
        found.append(Found(str(model), datetime.now(UTC), version, revision, params))
    return _runs(found, cluster, asked_by)


_NOT_ASKED = frozenset({"version", "from_rest_api", "from_trigger"})
"""What an event's extra holds beside parameters."""


def default_evaluation() -> Json:
    """Return the parameters of an evaluation where no ``nightly.yaml`` says them."""
    from nightshard.orchestration.params import DEFAULT_TASKS, default_cluster

    return {"cluster": default_cluster(current_settings()), "tasks": list(DEFAULT_TASKS)}


def _runs(found: Iterable[Found], cluster: str, asked_by: str) -> list[Json]:
    runs: dict[str, Json] = {}
    for one in found:
        conf = evaluation(one, {}, asked_by)
        if conf.get("cluster") == cluster:
            run_id = evaluation_run_id(one, conf)
            runs.setdefault(run_id, {"conf": conf, "trigger_run_id": run_id})
    for run_id in runs:
        log.info("To evaluate: %s", run_id)
    return list(runs.values())
