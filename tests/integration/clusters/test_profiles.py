"""Every site's batch script, as a real Slurm reads it."""

import shlex
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from support.sshd import clusters_own, transport_to

from nightshard.clusters.errors import SubmissionRejectedError
from nightshard.clusters.profile import load_named, profile_names
from nightshard.clusters.rehearsal import expected_start, rehearsal_script, rehearse
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.cluster import running
from nightshard.local.info import ClusterInfo
from nightshard.local.slurm_config import Overrides

pytestmark = pytest.mark.integration

CLUSTERS = PROJECT_ROOT / "include" / "clusters"
TEMPLATES = PROJECT_ROOT / "include" / "sbatch"
NAMES = profile_names(CLUSTERS)
ENVIRON = {"NIGHTSHARD_STATE": "/state"}
PARTITIONS = ("boost_usr_prod", "dc-gpu", "gh", "c23g")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterInfo]:
    """A cluster with the partitions of the sites and one node that is as large as theirs."""
    large = Overrides(nodes=1, gpus=8, cpus=128, memory_mb=512_000, partitions=PARTITIONS)
    with running(tmp_path_factory.mktemp("sites"), overrides=large) as info:
        yield info


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shards", [1, 20])
async def test_slurm_would_take_the_script(sites: ClusterInfo, name: str, shards: int) -> None:
    profile = load_named(CLUSTERS, name, ENVIRON)
    script = rehearsal_script(profile, 60, TEMPLATES, shards)
    async with transport_to(clusters_own(sites)) as transport:
        said = await rehearse(transport, profile, script)
    assert f"in partition {profile.slurm.partition or 'main'}" in said


async def test_the_expected_start_is_about_now_where_nothing_waits(sites: ClusterInfo) -> None:
    profile = load_named(CLUSTERS, "vista", ENVIRON)
    async with transport_to(clusters_own(sites)) as transport:
        start = await expected_start(transport, profile, 60, TEMPLATES)
    assert abs(start - datetime.now(UTC)) < timedelta(minutes=2)


async def test_what_slurm_would_refuse_is_told_in_its_words(sites: ClusterInfo) -> None:
    profile = load_named(CLUSTERS, "vista", ENVIRON)
    slurm = profile.slurm.model_copy(update={"partition": "nowhere"})
    async with transport_to(clusters_own(sites)) as transport:
        with pytest.raises(SubmissionRejectedError, match="Invalid partition name"):
            await expected_start(
                transport, profile.model_copy(update={"slurm": slurm}), 60, TEMPLATES
            )


def test_nothing_of_this_is_in_the_queue(sites: ClusterInfo) -> None:
    done = subprocess.run(
        shlex.split("squeue --noheader -t all"),
        env={**sites.environment()},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""
