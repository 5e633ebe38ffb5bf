"""A profile, a transport and a small staged run on each kind of local cluster."""

import itertools
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.echo_run import FINGERPRINT, echo_input, echo_spec

from nightshard.clusters.layout import RunLayout
from nightshard.clusters.login import Endpoint
from nightshard.clusters.pacing import PollBounds
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import render_script
from nightshard.clusters.ssh import SshTransport, connector
from nightshard.clusters.staging import ensure_worker, stage_run
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submission import Shard, Submission, first_submissions
from nightshard.clusters.submit import ArrayJob, submit_array
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.info import ClusterInfo

ROWS_PER_SHARD = 2
BOUNDS = PollBounds(floor_s=0.2, ceiling_s=0.5, grace_s=2.0, manifest_grace_s=2.0)

_numbers = itertools.count()


def make_transport(info: ClusterInfo) -> SshTransport:
    connect = connector(info.ssh_host, info.ssh_port, info.ssh_user, info.ssh_key, info.known_hosts)
    return SshTransport(
        connect, Endpoint(info.ssh_host, info.ssh_port, info.ssh_user, info.known_hosts)
    )


def make_profile(info: ClusterInfo, **changes: object) -> ClusterProfile:
    values = {
        "name": "test",
        "title": "Test cluster",
        "ssh_conn_id": "unused",
        "workdir": str(info.shared / "nightshard"),
        "slurm": {"partition": "main", "cpus_per_task": 1},
        "worker": {"python": sys.executable, "env": {"GREETING": 'it\'s "quoted" $HOME'}},
        "models": {"dir": str(info.shared / "models")},
        **changes,
    }
    return ClusterProfile.model_validate(values)


def shard_input(rank: int) -> bytes:
    text = "How much is 3 + 4?"
    return echo_input((f"{rank:016x}{row:016x}", text) for row in range(ROWS_PER_SHARD))


@dataclass(frozen=True)
class SmallRun:
    """A run of the echo engine that is staged and ready to be submitted."""

    transport: SshTransport
    profile: ClusterProfile
    layout: RunLayout
    world_size: int
    script: str
    worker: str

    def task(self, rank: int) -> Shard:
        return Shard(
            self.layout,
            rank,
            self.world_size,
            ROWS_PER_SHARD,
            FINGERPRINT,
            self.world_size,
            self.worker,
            max_job_minutes=5,
        )

    @property
    def submission(self) -> Submission:
        return self.task(0).submission(1)

    async def submit(self, **options: object) -> ArrayJob:
        return await submit_array(self.transport, self.submission, self.script, **options)

    def shard(self, job: ArrayJob, rank: int) -> WatchedShard:
        return WatchedShard(self.layout, rank, self.world_size, job, ROWS_PER_SHARD, FINGERPRINT)

    def with_script(self, script: str) -> "SmallRun":
        return replace(self, script=script)


class RunFactory:
    """Stages small runs on one cluster."""

    def __init__(self, info: ClusterInfo, transport: SshTransport) -> None:
        self.info = info
        self.transport = transport

    def profile(self, **changes: object) -> ClusterProfile:
        return make_profile(self.info, **changes)

    def layout(self) -> RunLayout:
        return RunLayout(self.profile().workdir, f"run-{next(_numbers)}")

    def poller(self) -> ClusterPoller:
        return ClusterPoller(lambda: make_transport(self.info), BOUNDS)

    async def stage(
        self, world_size: int = 3, seconds_per_request: float = 0.0, **changes: object
    ) -> SmallRun:
        profile = self.profile(**changes)
        layout = self.layout()
        worker = await ensure_worker(self.transport, profile, PROJECT_ROOT / "shard_worker" / "src")
        options = {"seconds_per_request": seconds_per_request}
        flush = {"rows": 1, "seconds": 1.0}
        spec = echo_spec(layout, world_size, self.info.shared, options, flush)
        files: dict[str, Path | bytes] = {"spec.json": spec}
        for rank in range(world_size):
            name = layout.input_file(rank, world_size).name
            files[f"inputs/{name}"] = shard_input(rank)
        await stage_run(self.transport, layout, files, world_size)
        (submission,) = first_submissions(layout, world_size, world_size)
        script = render_script(
            profile,
            submission,
            world_size=world_size,
            max_job_minutes=5,
            worker_zip=worker,
            templates=PROJECT_ROOT / "include" / "sbatch",
        )
        return SmallRun(self.transport, profile, layout, world_size, script, worker)


@pytest.fixture(params=["without accounting", "with accounting"])
def any_cluster(request: pytest.FixtureRequest) -> ClusterInfo:
    name = "local_cluster"
    if request.param == "with accounting":
        name = "local_cluster_with_accounting"
    return request.getfixturevalue(name)


@pytest.fixture
async def any_runs(any_cluster: ClusterInfo) -> AsyncIterator[RunFactory]:
    async with make_transport(any_cluster) as transport:
        yield RunFactory(any_cluster, transport)


@pytest.fixture
async def runs(local_cluster: ClusterInfo) -> AsyncIterator[RunFactory]:
    async with make_transport(local_cluster) as transport:
        yield RunFactory(local_cluster, transport)
