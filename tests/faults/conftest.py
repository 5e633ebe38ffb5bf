"""Clusters that can be broken, each started when the first test asks for it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.faults.run import Lab
from support.faults.site import Site
from support.faulty_proxy import FaultyProxy

from nightshard.clusters import poller
from nightshard.clusters.patience import patiently
from nightshard.local.slurm_config import Overrides

REMEMBERS_S = 3600
"""MinJobAge with which squeue shows every job of the session, so that doubles can be counted."""

FORGETS_S = 2


@pytest.fixture(scope="session")
def steady_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster that remembers all jobs."""
    yield from _running(
        Site(
            tmp_path_factory.mktemp("steady"),
            overrides=Overrides(min_job_age=REMEMBERS_S, kill_wait=1),
        )
    )


@pytest.fixture(scope="session")
def impatient_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster that soon takes a silent node for dead."""
    overrides = Overrides(min_job_age=REMEMBERS_S, kill_wait=1, slurmd_timeout=6, nodes=2)
    yield from _running(Site(tmp_path_factory.mktemp("impatient"), overrides=overrides))


@pytest.fixture(scope="session")
def forgetful_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster without accounts that forgets an ended job at once, and splits arrays early."""
    overrides = Overrides(min_job_age=FORGETS_S, kill_wait=1, max_array_size=3, nodes=2)
    yield from _running(Site(tmp_path_factory.mktemp("forgetful"), overrides=overrides))


@pytest.fixture(scope="session")
def accounted_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster whose accounts alone remember an ended job."""
    overrides = Overrides(min_job_age=FORGETS_S, kill_wait=1, nodes=2)
    yield from _running(
        Site(tmp_path_factory.mktemp("accounted"), accounting=True, overrides=overrides)
    )


def _running(site: Site) -> Iterator[Site]:
    try:
        site.up()
        yield site
    finally:
        site.down()


@asynccontextmanager
async def _lab(site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        # Wait for parts of a second where a user waits for five, or for half a minute.
        patch.setitem(patiently.__kwdefaults__, "first_wait_s", 0.4)
        patch.setattr(poller, "ACCOUNTS_FIRST_S", 1.0)
        async with FaultyProxy(site.info.ssh_host, site.info.ssh_port) as proxy:
            try:
                yield Lab(site, proxy, tmp_path / "known_hosts")
            finally:  # what a failed test left must not trouble the next one
                site.ask("scancel", f"--user={site.info.ssh_user}", check=False)


@pytest.fixture
async def lab(steady_site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    async with _lab(steady_site, tmp_path) as made:
        yield made


@pytest.fixture
async def impatient(impatient_site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    async with _lab(impatient_site, tmp_path) as made:
        yield made


@pytest.fixture
async def forgetful(forgetful_site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    async with _lab(forgetful_site, tmp_path) as made:
        yield made


@pytest.fixture
async def accounted(accounted_site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    async with _lab(accounted_site, tmp_path) as made:
        yield made
