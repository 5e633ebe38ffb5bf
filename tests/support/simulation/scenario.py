"""What a seed stands for: the site, the faults, and what people do."""

import random
from dataclasses import dataclass, field
from typing import Literal

from nightshard.clusters.submit import SETTLE_S


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster, drawn by the seed.

    Attributes:
        slots: jobs at once by node.
        accounts: sacct works, is disabled, lags behind by up to minutes, or is down at times.
        min_job_age_s: how long squeue remembers an ended job.
        lag_s: longest time until one host sees what another one wrote.
        clock_offset_s: the cluster's clock less ours.
        first_id: id of the first job.
        last_id: after it ids begin at 1 again.
        requeue: the site starts preempted jobs and those of failed nodes again itself.
        max_submitted: Slurm's own limit on elements in the queue.
        told_limit: the profile names that limit.
    """

    slots: dict[str, int]
    accounts: Literal["on", "off", "lagging", "flapping"]
    asked_accounts: Literal["auto", "yes", "no"]
    min_job_age_s: float
    lag_s: float
    clock_offset_s: float
    first_id: int
    last_id: int
    requeue: bool
    max_submitted: int | None
    told_limit: bool
    max_array_size: int


@dataclass(frozen=True, slots=True)
class Faults:
    """How often the connection fails, until the calm.

    Attributes:
        rate: probability that a call meets a fault.
        sbatch_rate: probability that sbatch itself answers badly.
        torn_rate: probability that a file is read while it is written.
        refused: times (from, to) in which no login is let in.
        controller_down: times (from, to) in which slurmctld does not answer.
        late_s: longest time by which a command that nobody waits for any more runs late.
    """

    rate: float
    sbatch_rate: float
    torn_rate: float
    refused: tuple[tuple[float, float], ...]
    controller_down: tuple[tuple[float, float], ...]
    late_s: float

    @property
    def too_late(self) -> bool:
        """Whether an array can show up later than anybody waits for it."""
        return self.late_s > SETTLE_S


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at a time."""

    at: float
    kind: str
    rank: int = 0
    length_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that a seed decides beforehand."""

    seed: int
    site: Site
    faults: Faults
    calm_at: float
    world_size: int
    rows: tuple[int, ...]
    row_s: float
    job_minutes: int
    max_attempts: int
    fates: float
    overlap: bool
    events: tuple[Event, ...] = field(default_factory=tuple)


def _spans(
    rng: random.Random, count: int, until: float, longest: float
) -> tuple[tuple[float, float], ...]:
    starts = sorted(rng.uniform(0, until) for _ in range(count))
    return tuple((start, min(start + rng.uniform(20, longest), until)) for start in starts)


TOO_LATE = 7
TOO_LATE_S = 60.0

SLURM_EVENTS = ("node_down", "preempted", "killed", "cancelled_by_hand", "time_limit")
AIRFLOW_EVENTS = ("triggerer_killed", "task_stopped", "task_cleared", "submit_killed")


def draw_scenario(seed: int) -> Scenario:
    """Draw a scenario; small worlds, so that a thousand of them are cheap."""
    rng = random.Random(f"scenario {seed}")
    calm_at = rng.choice([600.0, 1800.0, 3600.0])
    world_size = rng.randint(1, 6)
    limited, told = rng.random() < 0.2, rng.random() < 0.5
    # A limit below the size of one array has to be told.
    limit = rng.randint(2, 4) if told else rng.randint(world_size, world_size + 2)
    site = Site(
        slots={f"node{one + 1}": rng.randint(1, 3) for one in range(rng.randint(1, 3))},
        accounts=rng.choice(["on", "off", "lagging", "flapping"]),
        asked_accounts=rng.choice(["auto", "auto", "auto", "no"]),
        min_job_age_s=rng.choice([20.0, 60.0, 300.0]),
        lag_s=rng.choice([0.0, 0.0, 3.0, 20.0]),
        clock_offset_s=rng.choice([0.0, -7 * 3600.0, 5 * 3600.0]),
        first_id=rng.choice([1, 57, 990]),
        last_id=rng.choice([10**6, 10**6, 1000, 25]),
        requeue=rng.random() < 0.2,
        max_submitted=limit if limited else None,
        told_limit=told,
        max_array_size=rng.choice([1001, 1001, 2]),
    )
    faults = Faults(
        rate=rng.choice([0.0, 0.03, 0.1, 0.25]),
        sbatch_rate=rng.choice([0.0, 0.2, 0.6]),
        torn_rate=rng.choice([0.0, 0.0, 0.1]),
        refused=_spans(rng, rng.choice([0, 0, 1, 2]), calm_at, 900),
        controller_down=_spans(rng, rng.choice([0, 0, 1, 2]), calm_at, 600),
        # Later than anybody waits for: then only the worker's claim keeps the answers single.
        late_s=TOO_LATE_S if seed % 8 == TOO_LATE else rng.choice([0.0, 8.0]),
    )
    events = [
        Event(rng.uniform(1, calm_at), rng.choice(SLURM_EVENTS), rng.randrange(world_size),
              rng.uniform(30, 900))
        for _ in range(rng.choice([0, 1, 2, 4]))
    ]  # fmt: skip
    events += [
        Event(rng.choice([rng.uniform(0, 60), rng.uniform(0, calm_at)]),
              rng.choice(AIRFLOW_EVENTS), rng.randrange(world_size), rng.uniform(1, 400))
        for _ in range(rng.choice([0, 1, 2, 3]))
    ]  # fmt: skip
    if faults.rate == 0.0 and not faults.refused:
        # Nothing in the way: what people ask for has to be done within seconds.
        events.append(Event(rng.uniform(1, calm_at), "task_stopped", rng.randrange(world_size)))
    return Scenario(
        seed=seed,
        site=site,
        faults=faults,
        calm_at=calm_at,
        world_size=world_size,
        rows=tuple(rng.randint(1, 6) for _ in range(world_size)),
        row_s=rng.choice([5.0, 30.0, 90.0]),
        job_minutes=rng.choice([8, 30]),
        max_attempts=rng.choice([2, 4, 4]),
        fates=rng.choice([0.0, 0.15, 0.4]),
        overlap=rng.random() < 0.3,
        events=tuple(sorted(events, key=lambda one: one.at)),
    )
