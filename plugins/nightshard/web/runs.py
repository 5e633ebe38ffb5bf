"""What the pages need of Airflow, and what they show of a run. No Airflow here: it is handed in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nightshard.clusters.layout import RunLayout
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.transport import Transport
from nightshard.core.task_states import RUN_ENDED
from nightshard.web.looking import Found, alive
from nightshard.web.pages import NotThereError
from nightshard.web.shards import ShardLook, ShardTask, judge_shard


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the DAG as Airflow knows it.

    Attributes:
        dag_id: of the DAG.
        dag_run_id: Airflow's id.
        state: of the DAG run.
        run_key: names the run everywhere else; None before ``plan`` has ended.
        model: what is evaluated.
        profile: its cluster; None before ``plan`` has ended.
        layout: the run's remote paths; None before ``plan`` has ended.
        shards: by rank; None before ``prepare_dataset`` has ended, and empty where every answer
            existed already.
        submitted_at: when ``submit_shards`` ended, ISO 8601.
    """

    dag_id: str
    dag_run_id: str
    state: str
    run_key: str | None = None
    model: str | None = None
    profile: ClusterProfile | None = None
    layout: RunLayout | None = None
    shards: tuple[ShardTask, ...] | None = None
    submitted_at: str | None = None

    def shard(self, rank: int) -> ShardTask:
        """Return one shard.

        Raises:
            NotThereError: the run has none, none yet, or fewer.
        """
        if self.shards is None:
            when = (
                "has ended before it had shards" if self.state in RUN_ENDED else "has no shards yet"
            )
            raise NotThereError(f"This run {when}; its steps are told in Airflow.")
        if not self.shards:
            raise NotThereError("This run has no shards: every answer existed already.")
        if 0 <= rank < len(self.shards):
            return self.shards[rank]
        raise NotThereError(
            f"There is no shard {rank + 1}; the shards of this run are 1 to {len(self.shards)}."
        )


class Airflow(Protocol):
    """The part of Airflow behind the pages; blocking, called in a thread."""

    def run(self, dag_id: str, dag_run_id: str) -> Run:
        """Look a run up.

        Raises:
            NotThereError: there is none.
            UserError: its cluster's profile cannot be used.
        """
        ...

    def deployment(self) -> str | None:
        """Return the id of this installation, None before its first run."""
        ...

    def transport(self, profile: ClusterProfile) -> Transport:
        """Return a connection to a cluster's login node; it connects at its first use."""
        ...


@dataclass(frozen=True, slots=True)
class RunLook:
    """A run with one look at its cluster.

    Attributes:
        run: what Airflow knows.
        looks: what the cluster showed, by rank.
        alive: elements of the run that still wait or run, None where that is not known.
        complaint: why the cluster could not be looked at, or what squeue said.
    """

    run: Run
    looks: dict[int, ShardLook] = field(default_factory=dict)
    alive: Sequence[str] | None = None
    complaint: str | None = None

    @classmethod
    def of(cls, run: Run, found: Found) -> "RunLook":
        """Judge every shard by one look."""
        looks = {one.rank: judge_shard(one, found) for one in run.shards or ()}
        return cls(run, looks, None if found.complaint else alive(found), found.complaint)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of a whole run."""
        run = self.run
        return {
            "dag_run_id": run.dag_run_id,
            "run_key": run.run_key,
            "model": run.model,
            "cluster": run.profile.name if run.profile else None,
            "state": run.state,
            "submitted_at": run.submitted_at,
            "complaint": self.complaint,
            "alive": None if self.alive is None else list(self.alive),
            "shards": [self.shard_dict(shard) for shard in run.shards or ()],
        }

    def shard_dict(self, shard: ShardTask) -> dict[str, Any]:
        """Return the JSON form of one shard."""
        look = self.looks.get(shard.rank) or ShardLook(self.complaint or "not looked at")
        return {
            "rank": shard.rank,
            "number": shard.number,
            "count": shard.world_size,
            "rows": shard.rows,
            "task_state": shard.state,
            "try_number": shard.try_number,
            **look.to_dict(),
        }
