"""What all the shards of one cluster share in one process: a connection, a poller, a door."""

import asyncio
import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nightshard.clusters.admission import Admission
from nightshard.clusters.following import Cluster
from nightshard.clusters.pacing import PollBounds, most_careful
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.shared import shared
from nightshard.clusters.transport import Transport


@dataclass(frozen=True, slots=True)
class _Shared:
    poller: ClusterPoller
    admission: Admission


_sessions: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]]" = (
    weakref.WeakKeyDictionary()
)


def cluster_session(
    profile: ClusterProfile, templates: Path, open_transport: Callable[[], Transport]
) -> Cluster:
    """Return this event loop's cluster, made at the first call for its SSH connection.

    Profiles that share a connection share one poller, which is as careful as the most careful of
    them asks for.

    Args:
        profile: the cluster.
        templates: folder of the sbatch templates.
        open_transport: makes the connection; it should connect at its first use only.
    """
    key = profile.ssh_conn_id
    bounds = PollBounds(**profile.polling.model_dump())
    sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
    connect = functools.partial(shared, key, open_transport)
    if key not in sessions:
        sessions[key] = _Shared(
            ClusterPoller(connect, bounds, profile.slurm.accounting),
            Admission(connect, profile.slurm.max_submitted, wait_s=bounds.ceiling_s),
        )
    found = sessions[key]
    found.poller.bounds = most_careful(found.poller.bounds, bounds)
    return Cluster(
        profile=profile,
        templates=templates,
        connect=connect,
        poller=found.poller,
        admission=found.admission,
    )
