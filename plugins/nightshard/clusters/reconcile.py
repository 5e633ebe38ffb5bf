"""What was left behind on a cluster: jobs whose run is gone, and runs whose job is gone. Pure.

A job is cancelled only where all of this holds: its run's folder has this installation's id, it was
submitted from that folder, it is old enough that Airflow must have heard of it, and Airflow says
that its run was deleted or that the task of its shard has ended.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from nightshard.clusters.documents import Intent, RunIdentity
from nightshard.clusters.slurm import ShardState, compress_indices, element_id
from nightshard.clusters.submission import LABEL, parse_label
from nightshard.core.task_states import RUN_ENDED, TASK_ENDED

GRACE_S = 120
"""Age of a job below which it is left alone: a person's word may still be on its way to it."""

FOLLOWED = "deferred"

_NAME = re.compile(rf"ns-(?P<run_key>[a-z0-9][a-z0-9-]{{0,80}})-(?P<label>{LABEL})")


@dataclass(frozen=True, slots=True)
class JobName:
    """What a job's name says.

    Attributes:
        run_key: the run.
        label: the submission in the run: ``a1``, ``a1-c2``, ``a2-r17``.
        attempt: from 1.
        chunk: part of a large run, else None.
        rank: the only shard, or the first of one job's shards, else None.
    """

    run_key: str
    label: str
    attempt: int
    chunk: int | None = None
    rank: int | None = None


def parse_job_name(name: str) -> JobName | None:
    """Read ``ns-<run_key>-a<attempt>``, ``…-c<chunk>``, ``…-r<rank>`` or ``…-r<first>-<last>``.

    None for other names.
    """
    match = _NAME.fullmatch(name)
    label = None if match is None else parse_label(match["label"])
    if match is None or label is None:
        return None
    return JobName(match["run_key"], match["label"], label.attempt, label.chunk, label.rank)


@dataclass(frozen=True, slots=True)
class Element:
    """One array element that Slurm lists.

    Attributes:
        job_id: id of the array.
        index: array index, None for a job that is no array.
        state: what Slurm's word comes down to.
        name: job name.
        script: the batch script with its arguments, empty where the site does not show it.
        age_s: seconds since its submission by the controller's own clock, None where not known.
        cluster: its cluster on federated sites, else None.
    """

    job_id: str
    index: int | None
    state: ShardState
    name: str
    script: str = ""
    age_s: int | None = None
    cluster: str | None = None

    @property
    def id(self) -> str:
        """Slurm's id of the element, ``57_3``."""
        return element_id(self.job_id, self.index)

    @property
    def alive(self) -> bool:
        """Whether there is something to cancel."""
        return self.state in {ShardState.WAITING, ShardState.RUNNING}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder on the cluster.

    Attributes:
        path: the folder, named by the run's key.
        identity: whose run it is; None where nobody says so.
        intents: the submissions of the run by label.
    """

    path: PurePosixPath
    identity: RunIdentity | None
    intents: Mapping[str, Intent]


@dataclass(frozen=True, slots=True)
class RunNow:
    """What Airflow says of a run.

    Attributes:
        state: the run's state, None where there is no such run any more.
        shards: state of each shard's task by rank; a task without a state has None.
    """

    state: str | None
    shards: Mapping[int, str | None]


@dataclass(frozen=True, slots=True)
class Orphan:
    """An element that nobody wants: its name's parts, its shards where known, and why."""

    element: Element
    run_key: str
    ranks: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Jobless:
    """A shard of a run that goes on, whose latest job Slurm does not list.

    It may still have ended well; only its manifest tells.
    """

    run_key: str
    dag_run_id: str
    rank: int
    job: str
    task_state: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What was left behind.

    Attributes:
        orphans: to be cancelled.
        young: would be orphans, and are left alone until they are older.
        jobless: shards without a job.
    """

    orphans: tuple[Orphan, ...] = ()
    young: tuple[Orphan, ...] = ()
    jobless: tuple[Jobless, ...] = ()


def reconcile(
    elements: Iterable[Element],
    folders: Mapping[str, RunFolder],
    now: Mapping[str, RunNow],
    deployment: str,
    *,
    grace_s: int = GRACE_S,
) -> Findings:
    """Compare a cluster with Airflow.

    Args:
        elements: all array elements of the account, listed *before* Airflow was asked, so that a
            task that submits in between is seen at work.
        folders: all run folders by run key.
        now: what Airflow says, by run key; runs that were not asked for are left alone.
        deployment: id of this installation; folders with another id, or none, are left alone.
        grace_s: see :data:`GRACE_S`; an element of unknown age is left alone.
    """
    listed = list(elements)
    ours = {
        key: (folder, folder.identity, now[key])
        for key, folder in folders.items()
        if folder.identity is not None and folder.identity.deployment == deployment and key in now
    }
    found: list[Orphan] = []
    for element in listed:
        name = parse_job_name(element.name)
        if name is None or name.run_key not in ours or not element.alive:
            continue
        folder, _, run = ours[name.run_key]
        ranks = ranks_of(element, name, folder)
        reason = _why_unwanted(run, ranks)
        if reason is not None and _submitted_from(folder, name, element):
            found.append(Orphan(element, name.run_key, ranks, reason))
    names = {(element.name, element.index) for element in listed}
    return Findings(
        orphans=tuple(one for one in found if _old_enough(one.element, grace_s)),
        young=tuple(one for one in found if not _old_enough(one.element, grace_s)),
        jobless=tuple(
            one
            for folder, identity, run in ours.values()
            if run.state is not None and run.state not in RUN_ENDED
            for one in _jobless(folder, identity, run, names)
        ),
    )


def ranks_of(element: Element, name: JobName, folder: RunFolder) -> tuple[int, ...]:
    """Return the shards of an element, none where it cannot be said without the lost intent."""
    label = parse_label(name.label)
    if label is not None and label.ranks is not None:
        return tuple(label.ranks)
    intent = folder.intents.get(name.label)
    if element.index is None or (intent is None and name.chunk is not None):
        return ()
    if intent is None:
        return (element.index,)
    first = intent.first_rank + element.index * intent.per_job
    return tuple(range(first, min(first + intent.per_job, intent.first_rank + intent.tasks)))


def still_orphans(before: Findings, after: Findings) -> tuple[Orphan, ...]:
    """Return the orphans of two looks at Airflow that were orphans both times."""
    confirmed = {one.element for one in after.orphans}
    return tuple(one for one in before.orphans if one.element in confirmed)


def _why_unwanted(run: RunNow, ranks: Sequence[int]) -> str | None:
    """Say why nobody wants an element; None where somebody wants one of its shards."""
    if run.state is None:
        return "its run was deleted"
    reasons = [_why_shard_unwanted(run, rank) for rank in ranks]
    return reasons[0] if reasons and None not in reasons else None


def _why_shard_unwanted(run: RunNow, rank: int) -> str | None:
    ended = f"its run has ended ({run.state})" if run.state in RUN_ENDED else None
    if rank not in run.shards:
        return ended
    task_state = run.shards[rank]
    if task_state not in TASK_ENDED:
        return None
    return ended or f"the task of its shard has ended ({task_state})"


def _submitted_from(folder: RunFolder, name: JobName, element: Element) -> bool:
    """Whether a job is this folder's: another installation may have given it the same name."""
    if element.script.startswith(f"{folder.path}/"):
        return True
    intent = folder.intents.get(name.label)
    return intent is not None and intent.job_id == element.job_id


def _old_enough(element: Element, grace_s: int) -> bool:
    return element.age_s is not None and element.age_s >= grace_s


def _jobless(
    folder: RunFolder, identity: RunIdentity, run: RunNow, names: set[tuple[str, int | None]]
) -> Iterable[Jobless]:
    for rank, task_state in sorted(run.shards.items()):
        if task_state != FOLLOWED and task_state not in TASK_ENDED:
            continue
        latest = _latest_intent(folder, rank)
        # Without an id the submission is under way; a refusal is told by the task itself.
        if latest is None or latest.job_id is None:
            continue
        index = (rank - latest.first_rank) // latest.per_job
        if (latest.name, index) not in names:
            job = element_id(latest.job_id, index)
            yield Jobless(folder.path.name, identity.dag_run_id, rank, job, str(task_state))


def _latest_intent(folder: RunFolder, rank: int) -> Intent | None:
    covering = []
    for label, intent in folder.intents.items():
        read = parse_label(label)
        if read is not None and read.covers(rank, intent):
            covering.append((read.attempt, intent))
    return max(covering, key=lambda one: one[0])[1] if covering else None


def orphan_sentences(orphans: Sequence[Orphan], verb: str) -> list[str]:
    """Say which elements were dealt with and why, a sentence for each array and reason.

    Args:
        orphans: of one cluster.
        verb: for example ``Cancelled``.
    """

    def key(one: Orphan) -> tuple[str, str, str]:
        return one.element.job_id, one.element.name, one.reason

    said = []
    for (job_id, name, reason), group in groupby(sorted(orphans, key=key), key=key):
        indices = [one.element.index for one in group]
        known = [index for index in indices if index is not None]
        which = f"{job_id}_[{compress_indices(known)}]" if known else job_id
        said.append(f"{verb} {which} ({name}): {reason}.")
    return said


def jobless_sentence(one: Jobless) -> str:
    """Say what will happen to a shard without a job, or what a person can do."""
    begin = f"Run {one.run_key}, shard {one.rank + 1}: Slurm no longer lists its job {one.job}"
    if one.task_state == FOLLOWED:
        return (
            f"{begin} and there is no manifest; its task judges it after a grace time and gives it "
            "another attempt. If its log says nothing, the triggerer is not running."
        )
    return (
        f"{begin}, there is no manifest and its task has ended ({one.task_state}); to run it "
        f"again, clear the task `shard` with map index {one.rank} in {one.dag_run_id}."
    )
