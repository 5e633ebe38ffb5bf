"""Who generates which answers now: runs of one checkpoint wait for each other.

A nightly run and a backfill of the same checkpoint would otherwise generate the same answers at the
same time; one after the other, the second finds them. A claim is on one benchmark, sampled one way,
under one fingerprint; runs that differ in one of these go on side by side.
"""

import datetime
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nightshard.results.database import write_transaction
from nightshard.results.tables import Claim, utc_now

LONGEST = datetime.timedelta(days=7)
"""Age above which a claim counts no more: its installation may be gone for good."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that may hold claims.

    Attributes:
        run_key: of the run.
        deployment: id of its installation.
        dag_id: of its DAG.
        dag_run_id: Airflow's id.
    """

    run_key: str
    deployment: str
    dag_id: str
    dag_run_id: str


def take(
    engine: sa.Engine,
    fingerprint: str,
    benchmarks: Iterable[str],
    holder: Holder,
    *,
    gone: Collection[str] = (),
) -> list[Holder]:
    """Claim benchmarks under a fingerprint, all of them or none.

    Args:
        engine: the results database.
        fingerprint: of the run.
        benchmarks: registry names, each with what tells ways of sampling apart.
        holder: who asks; what it holds already stays its own.
        gone: keys of runs that have ended, whose claims may be taken over.

    Returns:
        Those that stand in the way; empty where the claims are the holder's now.
    """
    try:
        with write_transaction(engine) as connection:
            # In one order, so that no two wait for each other.
            for benchmark in sorted(set(benchmarks)):
                _take_one(connection, fingerprint, benchmark, holder, gone)
            held = sa.select(Claim).where(
                Claim.fingerprint == fingerprint,
                Claim.benchmark.in_(sorted(set(benchmarks))),
                Claim.run_key != holder.run_key,
            )
            others = {
                row["run_key"]: Holder(
                    row["run_key"], row["deployment"], row["dag_id"], row["dag_run_id"]
                )
                for row in connection.execute(held).mappings()
            }
            if others:
                raise _HeldError(list(others.values()))
    except _HeldError as error:
        return error.others
    return []


def release(engine: sa.Engine, run_key: str) -> None:
    """Give a run's claims up; harmless where it has none."""
    with write_transaction(engine) as connection:
        connection.execute(sa.delete(Claim).where(Claim.run_key == run_key))


class _HeldError(Exception):
    """Rolls a transaction back."""

    def __init__(self, others: list[Holder]) -> None:
        super().__init__(others)
        self.others = others


def _take_one(
    connection: sa.Connection,
    fingerprint: str,
    benchmark: str,
    holder: Holder,
    gone: Collection[str],
) -> None:
    row: dict[str, Any] = {
        "run_key": holder.run_key,
        "deployment": holder.deployment,
        "dag_id": holder.dag_id,
        "dag_run_id": holder.dag_run_id,
        "taken_at": utc_now(),
    }
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(Claim.__table__)
    columns = Claim.__table__.c
    free = sa.or_(
        columns.run_key.in_([*gone, holder.run_key]), columns.taken_at < utc_now() - LONGEST
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["fingerprint", "benchmark"], set_=row, where=free
        ),
        {"fingerprint": fingerprint, "benchmark": benchmark, **row},
    )
