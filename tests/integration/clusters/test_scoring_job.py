"""Answers are judged by a CPU job on the cluster, once, and what it says comes back."""

import asyncio
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.merging import answers_to

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.requests import build_requests
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.scoring import ScoreJob, begin, follow, give_up, score_layout
from nightshard.clusters.ssh import SshTransport
from nightshard.clusters.staging import package_archive
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.info import ClusterInfo
from nightshard.results.arrow import problems_to_table, requests_to_table
from nightshard.results.score import ScoreCard
from nightshard.results.score_job import ANSWERS, PROBLEMS, REQUESTS, SCORECARD

from .conftest import make_profile, make_transport

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MATH = [Problem("0", "How much is 1 + 1?", "2"), Problem("1", "How much is 2 + 2?", "4")]
CODE_GOLD = {"name": "add", "given": "", "exam": "assert candidate(1, 2) == 3"}
CODE = [Problem("c", "Add.", json.dumps(CODE_GOLD))]
TEXTS = ["\\boxed{2}", "\\boxed{5}", "```python\ndef add(a, b): return a + b\n```"]


def written(folder: Path) -> dict[str, Path | bytes]:
    """Write two answers to mathematics and a program into files."""
    asked = [("MATH500", MATH), ("HumanEval", CODE)]
    requests = [one for name, each in asked for one in build_requests(registry.get(name), each)]
    tables = {
        REQUESTS: requests_to_table(requests),
        PROBLEMS: problems_to_table(dict(asked)),
        ANSWERS: answers_to(requests, TEXTS),
    }
    files: dict[str, Path | bytes] = {}
    for name, table in tables.items():
        files[name] = folder / Path(name).name
        pq.write_table(table, files[name])
    return files


@pytest.fixture
def profile(local_cluster: ClusterInfo) -> ClusterProfile:
    slurm = {"partition": "main", "cpus_per_task": 1}
    scoring = {"where": "slurm", "python": sys.executable, "slurm": slurm}
    polling = {"floor_s": 0.2, "ceiling_s": 0.5, "grace_s": 2, "manifest_grace_s": 2}
    return make_profile(local_cluster, scoring=scoring, polling=polling)


class Judging:
    """One run's scoring on the cluster."""

    def __init__(self, transport: SshTransport, profile: ClusterProfile, folder: Path) -> None:
        self.transport = transport
        self.profile = profile
        self.layout = score_layout(profile, f"judging-{folder.name.replace('_', '-')}"[:70])
        self.files = written(folder)
        self.said: list[str] = []

    async def begin(self, owner: int = 1, **files: bytes) -> ScoreJob:
        return await begin(
            self.transport,
            self.profile,
            self.layout,
            self.files | files,
            archive=package_archive(PROJECT_ROOT / "plugins", "nightshard"),
            templates=PROJECT_ROOT / "include" / "sbatch",
            owner=owner,
        )

    async def follow(self, job: ScoreJob) -> str | None:
        return await follow(
            lambda: nullcontext(self.transport), self.profile, job, self.said.append
        )

    async def card(self) -> dict[str, Any]:
        content = await self.transport.get_bytes(self.layout.run / SCORECARD)
        assert content is not None
        return dict(json.loads(content))


@pytest.fixture
async def judging(local_cluster: ClusterInfo, profile: ClusterProfile, tmp_path: Path) -> Any:
    async with make_transport(local_cluster) as transport:
        yield Judging(transport, profile, tmp_path)


async def test_the_scores_are_those_that_airflow_would_have_found(judging: Judging) -> None:
    first = await judging.begin()
    again = await judging.begin()
    assert again.job.adopted
    assert (again.job.job_id, again.attempt) == (first.job.job_id, 1)

    assert await judging.follow(first) is None

    card = ScoreCard.from_dict(await judging.card())
    accuracy = {one.benchmark: one.value for one in card.metrics if one.metric == "accuracy"}
    assert accuracy == {"MATH500": 0.5, "HumanEval": 1.0}
    assert card.failures == {}
    later = await judging.begin()
    assert later.attempt == 2
    await give_up(judging.transport, later, owner=1)


async def test_a_job_that_fails_says_why_and_is_submitted_again_next_time(
    judging: Judging,
) -> None:
    job = await judging.begin(**{REQUESTS: b"torn"})
    problem = await judging.follow(job)
    assert problem is not None
    assert "that judges ended with exit code 1" in problem
    assert "is damaged" in problem
    again = await judging.begin()
    assert again.attempt == 2
    assert await judging.follow(again) is None


async def test_a_job_that_was_cancelled_is_not_waited_for_and_can_be_begun_again(
    judging: Judging,
) -> None:
    job = await judging.begin(owner=3)
    assert not await give_up(judging.transport, job, owner=2)  # of an earlier try
    assert await give_up(judging.transport, job, owner=3)
    problem = await asyncio.wait_for(judging.follow(job), 60)
    # Slurm may be too late for a job as short as this one.
    if problem is not None:
        assert "left no exit code" in problem or "exit code" in problem
    assert (await judging.begin()).attempt == 2


def test_a_job_survives_json(profile: ClusterProfile) -> None:
    value = {
        "layout": {"workdir": profile.workdir, "run_key": "run-1-score"},
        "attempt": 2,
        "job": {
            "job_id": "57",
            "cluster": None,
            "name": "ns-run-1-score-a2",
            "attempt": 2,
            "first_rank": 0,
            "adopted": False,
            "per_job": 1,
        },
    }
    assert ScoreJob.from_dict(value).to_dict() == value
