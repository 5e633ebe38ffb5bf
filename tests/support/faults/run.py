"""Small runs of the echo engine, followed through a line that can be broken."""

import asyncio
import functools
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.echo_run import FINGERPRINT, echo_input, echo_spec
from support.faults.site import Site, until, worker_of
from support.faulty_proxy import FaultyProxy

from nightshard.clusters.admission import Admission
from nightshard.clusters.following import Cluster, ShardFollower, ShardOutcome
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.login import Endpoint
from nightshard.clusters.pacing import PollBounds
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.shared import shared
from nightshard.clusters.ssh import SshTransport, connector
from nightshard.clusters.staging import ensure_worker, stage_run
from nightshard.clusters.submission import Shard, array_size
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.processes import Process

POLLING = {"floor_s": 0.25, "ceiling_s": 0.5, "grace_s": 2.0, "manifest_grace_s": 1.0}
SETTLE_S = 0.5

_numbers = itertools.count(1)


class FaultRun:
    """One staged run: its shards, what its user was told, and how it ended.

    Attributes:
        told: all sentences so far, in order.
        outcomes: of the shards that ended, by rank.
    """

    def __init__(self, lab: "Lab", profile: ClusterProfile, shards: Sequence[Shard]) -> None:
        self.lab = lab
        self.profile = profile
        self.shards = list(shards)
        self.layout = shards[0].layout
        self.folder = Path(self.layout.run)
        self.told: list[str] = []
        self.outcomes: dict[int, ShardOutcome] = {}
        self._news = asyncio.Event()

    @property
    def request_ids(self) -> list[str]:
        """What has to be answered."""
        return [
            _request_id(s.layout.run_key, s.rank, row) for s in self.shards for row in range(s.rows)
        ]

    def tell(self, sentence: str) -> None:
        """Take a sentence of a shard's story."""
        self.told.append(sentence)
        self._news.set()

    async def hear(self, words: str, timeout_s: float = 60.0) -> str:
        """Wait until a sentence with some words has been told, and return it."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._news.clear()
                    for sentence in self.told:
                        if words in sentence:
                            return sentence
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"nobody said {words!r} but {self.told}") from None

    def follower(
        self, rank: int, cluster: Cluster | None = None, try_number: int = 1
    ) -> ShardFollower:
        """Return a follower made of nothing but the shard's JSON, as after a restart."""
        shard = Shard.from_dict(json.loads(json.dumps(self.shards[rank].to_dict())))
        return ShardFollower(
            cluster or self.lab.cluster(self.profile), shard, None, self.tell, try_number
        )

    async def follow(self, *ranks: int, try_number: int = 1) -> list[ShardOutcome]:
        """Submit what is not submitted and follow shards, all by default, to their ends."""
        cluster = self.lab.cluster(self.profile)
        chosen = ranks or tuple(range(len(self.shards)))
        found = await asyncio.gather(
            *(self.follower(rank, cluster, try_number).run() for rank in chosen)
        )
        self.outcomes.update(zip(chosen, found, strict=True))
        return found

    def begin(self, *ranks: int, try_number: int = 1) -> "asyncio.Task[list[ShardOutcome]]":
        """Follow in the background, so that a test can break something meanwhile."""
        return asyncio.create_task(self.follow(*ranks, try_number=try_number))

    def progress(self, rank: int) -> dict[str, Any]:
        """Read how far a shard is, past every connection."""
        try:
            value: dict[str, Any] = json.loads(Path(self.layout.progress(rank)).read_text())
        except (OSError, ValueError):
            return {}
        return value

    def parts(self, rank: int) -> list[Path]:
        """List a shard's parts."""
        return sorted((Path(self.layout.shard(rank)) / "parts").glob("part-*.parquet"))

    async def answered(self, rank: int, count: int, attempt: int = 1) -> None:
        """Wait until that many answers of a shard are safely on disk."""

        def there() -> bool:
            progress = self.progress(rank)
            working = progress.get("attempt") == attempt and progress["phase"] == "generating"
            known = min(int(progress.get("done", 0)), len(self.parts(rank)))
            return working and known >= count

        what = f"shard {rank} had {count} answers in attempt {attempt}"
        try:
            await until(there, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.told}, {self.progress(rank)}") from None

    async def working(self, rank: int, count: int, attempt: int = 1) -> Process:
        """Wait for that many answers, and return the process that made them."""
        await self.answered(rank, count, attempt)
        return worker_of(self.folder, rank, attempt)

    def manifest(self, rank: int) -> Path:
        """Where a shard's manifest lies."""
        return Path(self.layout.manifest(rank, len(self.shards)))

    def output(self, rank: int) -> Path:
        """Where a shard's answers lie."""
        return Path(self.layout.output_file(rank, len(self.shards)))

    async def finished(self, rank: int) -> None:
        """Wait until a shard's manifest is there and no job of the run is left."""
        await until(self.manifest(rank).exists, f"shard {rank} had a manifest")
        await until(lambda: not self.lab.site.jobs(self.layout.run_key), "its jobs ended")

    def jobs(self) -> dict[str, str]:
        """Return the states of the run's elements that wait or run."""
        return self.lab.site.jobs(self.layout.run_key)

    async def element(self, rank: int, attempt: int = 1) -> str:
        """Wait until Slurm knows an attempt, and return the element's id."""
        shard = self.shards[rank]
        name = shard.submission(attempt).job_name
        await until(lambda: bool(self.lab.site.arrays(name)), f"Slurm knew {name}")
        (array,) = self.lab.site.arrays(name)
        return f"{array}_{shard.index}"


class Lab:
    """A cluster behind a line that can be broken.

    Args:
        site: the cluster.
        proxy: the line.
        known_hosts: a file with the cluster's host key under the line's address.
    """

    def __init__(self, site: Site, proxy: FaultyProxy, known_hosts: Path) -> None:
        self.site = site
        self.proxy = proxy
        self.known_hosts = known_hosts
        self.trust(site.info.host_key)

    def trust(self, host_key: str) -> None:
        """Write down the host key that is trusted."""
        self.known_hosts.write_text(f"[{self.proxy.host}]:{self.proxy.port} {host_key}\n")

    def transport(self, *, direct: bool = False) -> SshTransport:
        """Return a new connection, through the line unless ``direct``."""
        info = self.site.info
        host, port, known = self.proxy.host, self.proxy.port, self.known_hosts
        if direct:
            host, port, known = info.ssh_host, info.ssh_port, info.known_hosts
        connect = connector(host, port, info.ssh_user, info.ssh_key, known)
        return SshTransport(connect, Endpoint(host, port, info.ssh_user, known))

    def cluster(self, profile: ClusterProfile) -> Cluster:
        """Return the cluster as a process that has just begun sees it."""
        connect = functools.partial(shared, object(), self.transport, idle_s=0.2)
        bounds = PollBounds(**profile.polling.model_dump())
        return Cluster(
            profile=profile,
            templates=PROJECT_ROOT / "include" / "sbatch",
            connect=connect,
            poller=ClusterPoller(connect, bounds, profile.slurm.accounting),
            admission=Admission(
                connect, profile.slurm.max_submitted, wait_s=0.3, settle_s=SETTLE_S
            ),
        )

    def profile(self, **changes: Any) -> ClusterProfile:
        """Return the cluster's profile; sections are merged, not replaced."""
        info = self.site.info
        values: dict[str, Any] = {
            "name": "test",
            "title": "Test cluster",
            "ssh_conn_id": "unused",
            "workdir": str(info.shared / "nightshard"),
            "slurm": {"partition": "main", "cpus_per_task": 1},
            "worker": {"python": sys.executable},
            "models": {"dir": str(info.shared / "models")},
            "polling": POLLING,
            "retry": {},
        }
        for name, change in changes.items():
            values[name] = {**values[name], **change} if isinstance(change, dict) else change
        return ClusterProfile.model_validate(values)

    async def stage(
        self,
        shards: int = 1,
        rows: int = 4,
        pace: float = 0.35,
        *,
        transport: SshTransport | None = None,
        flush_rows: int = 1,
        load_seconds: float = 0.0,
        balance: str = "static",
        **changes: Any,
    ) -> FaultRun:
        """Bring a run to the cluster.

        Args:
            shards: number of shards.
            rows: answers that each owes.
            pace: seconds that an answer takes; one is made after the other.
            transport: by default one past the line.
            flush_rows: answers in a part.
            load_seconds: how long the engine loads.
            balance: whether shards share their work.
            changes: of the profile.
        """
        profile = self.profile(**changes)
        layout = RunLayout(profile.workdir, f"run-{next(_numbers)}")
        slurm = profile.slurm
        per_job = slurm.shards_per_job
        size = array_size(shards, slurm.max_array_size, slurm.max_submitted, per_job)
        async with transport or self.transport(direct=True) as through:
            worker = await ensure_worker(through, profile, PROJECT_ROOT / "shard_worker" / "src")
            options = {"seconds_per_request": pace, "load_seconds": load_seconds}
            flush = {"rows": flush_rows, "seconds": 60.0}
            model = self.site.info.shared
            spec = echo_spec(layout, shards, model, options, flush, balance=balance)
            files: dict[str, Path | bytes] = {"spec.json": spec}
            for rank in range(shards):
                questions = (
                    (_request_id(layout.run_key, rank, row), f"How much is {row} + {rank}?")
                    for row in range(rows)
                )
                name = layout.input_file(rank, shards).name
                files[f"inputs/{name}"] = echo_input(questions)
            await stage_run(through, layout, files, shards, array_size=size, per_job=per_job)
        return FaultRun(
            self,
            profile,
            [
                Shard(
                    layout,
                    rank,
                    shards,
                    rows,
                    FINGERPRINT,
                    size,
                    worker,
                    max_job_minutes=5,
                    per_job=per_job,
                )
                for rank in range(shards)
            ],
        )

    def quicken(self, run: FaultRun) -> None:
        """Let the next attempt's engine answer at once."""
        path = run.folder / "spec.json"
        spec = json.loads(path.read_text())
        spec["engine"]["options"]["seconds_per_request"] = 0.0
        path.write_text(json.dumps(spec))


def _request_id(run_key: str, rank: int, row: int) -> str:
    return f"{int(run_key.rpartition('-')[2]):08x}{rank:08x}{row:016x}"
