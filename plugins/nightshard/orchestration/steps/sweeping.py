"""One evaluation with several numbers of shards: the DAG ``scaling_sweep``."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from upath import UPath

from nightshard.clusters.detect import AUTO
from nightshard.core.errors import UserError
from nightshard.core.hashing import content_id
from nightshard.core.run_params import parse_run_params
from nightshard.orchestration.steps import Json, current_settings, profile_named
from nightshard.results.database import open_database
from nightshard.results.read import get_run
from nightshard.results.store import write_bytes
from nightshard.results.sweep import Measured, measure, recommended, table, words
from nightshard.results.tables import Run

log = logging.getLogger(__name__)

MOST = 128
"""Shards that are recommended at most where the profile sets no limit."""


def plan_sweep(values: Mapping[str, Any], dag_id: str, run_id: str) -> list[Json]:
    """Return ``conf`` and ``trigger_run_id`` of one run of ``evaluate`` for each shard count.

    Each generates all its answers; none is published.

    Raises:
        UserError: a count or another parameter cannot be used.
    """
    asked = {name: value for name, value in values.items() if name != "shards"}
    counts = sorted(set(values.get("shards") or ()))
    if not counts or not all(isinstance(one, int) and one >= 1 for one in counts):
        raise UserError("shards is empty or holds no whole numbers; give for example 1, 2, 4, 8.")
    if asked.get("cluster") == AUTO:
        raise UserError("A sweep compares runs on one cluster; name it in place of auto.")
    digest = content_id(run_id)[:8]
    runs = []
    for count in counts:
        conf = {**asked, "num_shards": count, "force": True, "publish": "no"}
        conf["asked_by"] = f"{dag_id}/{run_id}"
        parse_run_params(conf)
        runs.append({"conf": conf, "trigger_run_id": f"sweep__{digest}-{count}-shards"})
    return runs


def report(planned: Sequence[Json]) -> Json:
    """Measure the runs; write table, words and two plots into the store.

    Returns:
        ``text`` in Markdown, ``recommended`` by what it is chosen by, and ``folder``.

    Raises:
        UserError: the runs tell nothing.
    """
    from nightshard.results.scaling import Point, Scaling
    from nightshard.web.plots import plot_scaling, plot_timelines
    from nightshard.web.timeline import timeline

    settings = current_settings()
    engine = open_database(settings.database_url)
    records = [get_run(engine, key) for key in _keys(engine, planned)]
    points = [one for run in records if (one := measure(run)) is not None]
    if not points:
        raise UserError("None of the runs tells what its shards took.")
    params = planned[0]["conf"]
    limit = profile_named(params["cluster"]).limits.max_shards or MOST
    title = f"{records[0].model.name} on {params['cluster']}, {records[0].requests} answers"
    counts = {one["conf"]["num_shards"] for one in planned} - {one.shards for one in points}
    failed = [f"Without a result: {', '.join(map(str, sorted(counts)))} shards."] if counts else []
    sentences = [*words(points, limit), *failed]
    text = "\n".join([title, "", table(points), "", *_listed(sentences)])
    scaling = Scaling(
        records[0].model.name,
        records[0].model.revision,
        params["cluster"],
        records[0].requests,
        tuple(
            Point(one.shards, 1, one.wall_seconds, one.gpu_seconds, (one.run_key,))
            for one in points
        ),
    )
    folder = UPath(settings.store) / "sweeps" / planned[0]["trigger_run_id"].split("-")[0]
    write_bytes(folder / "report.md", f"# {text}\n".encode())
    write_bytes(folder / "time.svg", plot_scaling(scaling, dark=False))
    lines = [
        (f"{run.num_shards} shard{'s' if run.num_shards > 1 else ''}", timeline(run))
        for run in records
    ]
    write_bytes(folder / "timeline.svg", plot_timelines(lines, dark=False))
    write_bytes(folder / "points.json", _points_json(points))
    for line in text.splitlines():
        log.info("%s", line)
    return {"text": text, "recommended": recommended(points, limit), "folder": str(folder)}


def _listed(sentences: Sequence[str]) -> list[str]:
    return [f"- {one}" for one in sentences]


def _points_json(points: Sequence[Measured]) -> bytes:
    return json.dumps([asdict(one) for one in points], indent=2).encode()


def _keys(engine: sa.Engine, planned: Sequence[Json]) -> list[str]:
    ids = [one["trigger_run_id"] for one in planned]
    statement = (
        sa.select(Run.run_key).where(Run.dag_run_id.in_(ids)).order_by(Run.num_shards, Run.run_key)
    )
    with engine.connect() as connection:
        return list(connection.scalars(statement))
