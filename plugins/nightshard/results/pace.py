"""How quickly earlier runs of like models went on a cluster."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from nightshard.core.scaling import Observation, Pace, fit
from nightshard.results.score import SCORED
from nightshard.results.tables import Model, Run, Shard

LIKE = 1.5
"""Weights of up to so much more or less count as of one size."""

NEWEST = 40
"""Runs that are looked at; older ones may have had other software."""


def known_pace(
    engine: sa.Engine, cluster: str, *, name: str, family: str | None, weights_bytes: int | None
) -> Pace | None:
    """Fit a pace to earlier runs; None where there are none.

    Those of the model itself count before those of its family, and these before those of models
    whose weights have about the same size.

    Args:
        engine: the results database.
        cluster: name of the profile.
        name: of the model.
        family: of the model.
        weights_bytes: of the model.
    """
    for like in _likenesses(name, family, weights_bytes):
        seen = observations(engine, cluster, like)
        if seen:
            return fit(seen)
    return None


def _likenesses(
    name: str, family: str | None, weights_bytes: int | None
) -> Sequence[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [Model.name == name]
    if family:
        found.append(Model.family == family)
    if weights_bytes:
        found.append(Model.weights_bytes.between(weights_bytes / LIKE, weights_bytes * LIKE))
    return found


def observations(
    engine: sa.Engine, cluster: str, like: sa.ColumnElement[bool]
) -> list[Observation]:
    """Return what runs took that generated all their answers in one attempt a shard.

    Args:
        engine: the results database.
        cluster: name of the profile.
        like: which models count.
    """
    runs = (
        sa.select(Run.id)
        .join(Model, Run.model_id == Model.id)
        .where(Run.cluster == cluster, Run.status == SCORED, Run.reused == 0, Run.num_shards > 0)
        .where(like)
        .order_by(Run.created_at.desc())
        .limit(NEWEST)
    )
    statement = sa.select(Shard, Run.num_shards).join(Run).where(Run.id.in_(runs))
    by_run: dict[str, tuple[int, list[Shard]]] = {}
    with Session(engine) as session:
        for shard, count in session.execute(statement):
            by_run.setdefault(shard.run_id, (count, []))[1].append(shard)
        return [
            seen for count, its in by_run.values() if (seen := _observation(count, its)) is not None
        ]


def _observation(count: int, shards: Sequence[Shard]) -> Observation | None:
    tokens = sum(one.output_tokens or 0 for one in shards)
    totals = [one.total_s for one in shards if one.total_s]
    # A shard that took several attempts has a manifest of the last one alone.
    if len(shards) != count or len(totals) != count or tokens <= 0:
        return None
    startups = [(one.import_s or 0.0) + (one.load_s or 0.0) for one in shards]
    startup = sum(startups) / count
    return Observation(count, tokens, max(totals), sum(totals), startup or None)
