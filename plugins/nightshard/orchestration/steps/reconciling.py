"""Finding and mending what was left behind on a cluster: the DAG ``reconcile``."""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Protocol

from nightshard.clusters.documents import RunIdentity
from nightshard.clusters.inventory import (
    Inventory,
    cancel_orphans,
    find_manifests,
    take_inventory,
)
from nightshard.clusters.profile import ClusterProfile, profile_names
from nightshard.clusters.reconcile import (
    GRACE_S,
    Findings,
    Jobless,
    Orphan,
    RunNow,
    jobless_sentence,
    orphan_sentences,
    parse_job_name,
    reconcile,
    still_orphans,
)
from nightshard.core.errors import UserError
from nightshard.core.task_states import SHARD_TASK
from nightshard.orchestration.connections import open_transport
from nightshard.orchestration.steps import Json, current_settings, profile_named

log = logging.getLogger(__name__)

GOING = ["queued", "running"]
RUNS_PER_QUESTION = 50
"""Run ids travel in the address of a request, which must stay shorter than 8 KiB."""

_MAPPED = re.compile(rf"{SHARD_TASK}_(\d+)")

AskAirflow = Callable[[Mapping[str, RunIdentity], Collection[str]], dict[str, RunNow]]
"""Takes runs by key and the keys of those that have jobs; returns what Airflow says of both these
and the runs that still go on."""


class TaskInstance(Protocol):
    """What a task's ``ti`` can ask Airflow."""

    def get_dr_count(
        self, dag_id: str, *, run_ids: list[str], states: list[str] | None = None
    ) -> int:
        """Count runs."""
        ...

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        """Return a run's state."""
        ...

    def get_task_states(
        self, dag_id: str, *, task_ids: list[str], run_ids: list[str]
    ) -> dict[str, dict[str, str | None]]:
        """Return states by run id and ``<task>_<map index>``."""
        ...


def distinct_clusters(connected: Callable[[str], bool]) -> list[str]:
    """Return the profiles to look at: one of those that share a connection and a folder.

    A profile that cannot be read is among them, so that its own task says why. One without a
    connection is not: nobody uses that cluster yet.

    Args:
        connected: whether Airflow has a connection of a name.
    """
    chosen: dict[object, str] = {}
    for name in profile_names(current_settings().clusters):
        try:
            profile = profile_named(name)
        except UserError:
            chosen[name] = name
            continue
        if connected(profile.ssh_conn_id):
            chosen.setdefault((profile.ssh_conn_id, profile.workdir), name)
    return list(chosen.values())


def ask_airflow(ti: TaskInstance) -> AskAirflow:
    """Return a function that asks Airflow over the task's own channel."""

    def ask(runs: Mapping[str, RunIdentity], with_jobs: Collection[str]) -> dict[str, RunNow]:
        answer: dict[str, RunNow] = {}
        for dag_id in sorted({identity.dag_id for identity in runs.values()}):
            keys = sorted(key for key, identity in runs.items() if identity.dag_id == dag_id)
            for at in range(0, len(keys), RUNS_PER_QUESTION):
                batch = {key: runs[key].dag_run_id for key in keys[at : at + RUNS_PER_QUESTION]}
                ids = list(batch.values())
                if not ti.get_dr_count(dag_id, run_ids=ids, states=GOING):
                    batch = {key: run_id for key, run_id in batch.items() if key in with_jobs}
                answer |= _states(ti, dag_id, batch)
        return answer

    return ask


def _states(ti: TaskInstance, dag_id: str, runs: Mapping[str, str]) -> dict[str, RunNow]:
    # Airflow takes an empty list of runs for all runs.
    if not runs:
        return {}
    shards = ti.get_task_states(dag_id, task_ids=[SHARD_TASK], run_ids=list(runs.values()))
    answer = {}
    for key, run_id in runs.items():
        there = ti.get_dr_count(dag_id, run_ids=[run_id]) > 0
        ranks = {
            int(match[1]): state
            for name, state in shards.get(run_id, {}).items()
            if (match := _MAPPED.fullmatch(name))
        }
        answer[key] = RunNow(ti.get_dagrun_state(dag_id, run_id) if there else None, ranks)
    return answer


def reconcile_cluster(
    cluster: str, deployment: str, ask: AskAirflow, *, grace_s: int = GRACE_S
) -> Json:
    """Cancel the jobs whose run is gone, and report the runs whose job is gone.

    The cluster is looked at first and Airflow asked afterwards, and asked again before anything is
    cancelled, so that a task that takes its job over at this moment keeps it.

    Args:
        cluster: name of a profile.
        deployment: id of this installation.
        ask: from :func:`ask_airflow`.
        grace_s: age below which a job is left alone.

    Returns:
        ``cluster``, ``cancelled`` (ids of elements), ``jobless`` (run key and rank) and
        ``sentences``.

    Raises:
        TransportError: the connection failed.
        UserError: the cluster cannot be logged in to, or its profile cannot be used.
    """
    profile = profile_named(cluster)
    inventory = asyncio.run(_take_inventory(profile))
    runs = {
        key: folder.identity
        for key, folder in inventory.folders.items()
        if folder.identity is not None and folder.identity.deployment == deployment
    }
    names = (parse_job_name(one.name) for one in inventory.elements if one.alive)
    with_jobs = {name.run_key for name in names if name is not None}

    def compare() -> Findings:
        now = ask(runs, with_jobs)
        return reconcile(inventory.elements, inventory.folders, now, deployment, grace_s=grace_s)

    findings = compare()
    orphans = still_orphans(findings, compare()) if findings.orphans else ()
    jobless = asyncio.run(_mend(profile, orphans, findings.jobless))
    sentences = [
        *orphan_sentences(orphans, "Cancelled"),
        *orphan_sentences(findings.young, "Left alone while it is new:"),
        *map(jobless_sentence, jobless),
    ] or [_nothing(inventory, len(runs))]
    for sentence in sentences:
        log.info("%s", sentence)
    return {
        "cluster": cluster,
        "cancelled": [one.element.id for one in orphans],
        "jobless": [{"run_key": one.run_key, "rank": one.rank} for one in jobless],
        "sentences": sentences,
    }


async def _take_inventory(profile: ClusterProfile) -> Inventory:
    async with open_transport(profile) as transport:
        return await take_inventory(transport, PurePosixPath(profile.workdir))


async def _mend(
    profile: ClusterProfile, orphans: tuple[Orphan, ...], suspects: tuple[Jobless, ...]
) -> list[Jobless]:
    """Cancel the orphans; return the suspects that have no manifest."""
    if not orphans and not suspects:
        return []
    async with open_transport(profile) as transport:
        await cancel_orphans(transport, orphans)
        run_keys = {one.run_key for one in suspects}
        ended_well = await find_manifests(transport, PurePosixPath(profile.workdir), run_keys)
    return [one for one in suspects if (one.run_key, one.rank) not in ended_well]


def _nothing(inventory: Inventory, runs: int) -> str:
    alive = sum(one.alive for one in inventory.elements)
    return f"Nothing was left behind: {alive} jobs of the account and {runs} runs of ours."
