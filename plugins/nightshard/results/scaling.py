"""What more shards bring: time and GPU hours of runs that differ in their number of shards."""

import statistics
from dataclasses import dataclass

import sqlalchemy as sa

from nightshard.results.score import SCORED
from nightshard.results.tables import Model, Run, ShardAttempt


@dataclass(frozen=True, slots=True)
class Point:
    """Runs with one number of shards.

    Attributes:
        shards: their number.
        runs: how many runs there are.
        wall_seconds: median from start to end.
        gpu_seconds: median of what their attempts held, None where that is not known.
        run_keys: the runs, the newest first.
    """

    shards: int
    runs: int
    wall_seconds: float
    gpu_seconds: float | None
    run_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scaling:
    """One evaluation, run with several numbers of shards.

    Attributes:
        model: its name.
        revision: of its weights.
        cluster: name of the profile.
        requests: answers of a run.
        points: by number of shards.
    """

    model: str
    revision: str
    cluster: str
    requests: int
    points: tuple[Point, ...]


def read_scaling(engine: sa.Engine) -> list[Scaling]:
    """Return the evaluations that were run with two numbers of shards or more.

    Only scored runs that made every answer themselves count: one that reused answers is quick for
    another reason.
    """
    spent = (
        sa.select(ShardAttempt.run_id, sa.func.sum(ShardAttempt.gpu_seconds).label("seconds"))
        .group_by(ShardAttempt.run_id)
        .subquery()
    )
    statement = (
        sa.select(
            Model.name,
            Model.revision,
            Run.cluster,
            Run.requests,
            Run.num_shards,
            Run.run_key,
            Run.wall_seconds,
            spent.c.seconds,
        )
        .join(Model, Run.model_id == Model.id)
        .outerjoin(spent, spent.c.run_id == Run.id)
        .where(Run.status == SCORED, Run.reused == 0, Run.num_shards > 0)
        .where(Run.wall_seconds.is_not(None))
        .order_by(Run.created_at.desc(), Run.run_key)
    )
    groups: dict[tuple[str, str, str, int], dict[int, list[tuple[str, float, float | None]]]] = {}
    with engine.connect() as connection:
        for *same, shards, key, wall, gpu in connection.execute(statement):
            group = groups.setdefault(tuple(same), {})
            seconds = None if gpu is None else float(gpu)
            group.setdefault(shards, []).append((key, float(wall), seconds))
    return [
        Scaling(*same, points=tuple(_point(shards, its) for shards, its in sorted(group.items())))
        for same, group in groups.items()
        if len(group) > 1
    ]


def _point(shards: int, runs: list[tuple[str, float, float | None]]) -> Point:
    known = [gpu for _, _, gpu in runs if gpu is not None]
    return Point(
        shards,
        len(runs),
        statistics.median(wall for _, wall, _ in runs),
        statistics.median(known) if known else None,
        tuple(key for key, _, _ in runs),
    )
