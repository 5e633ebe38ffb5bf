"""Models for clusters without internet: copied whole, once, and removed when nobody uses them."""

import asyncio
import hashlib
import os
import time
from pathlib import Path, PurePosixPath

import pytest
from support.profiles import profile
from support.sshd import clusters_own, transport_to

from nightshard.clusters import model_upload
from nightshard.clusters.model_cleaning import StoredModel, list_models, remove
from nightshard.clusters.model_upload import upload_model
from nightshard.clusters.models import resolve_model
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.ssh import SshTransport
from nightshard.core.errors import UserError
from nightshard.local.info import ClusterInfo

pytestmark = pytest.mark.integration

COMMIT = hashlib.sha1(b"a commit").hexdigest()


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshots" / COMMIT
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "deep" / "more.json").write_text("[1]")
    return folder


@pytest.fixture
def site(local_cluster: ClusterInfo, worker_env: Path, tmp_path: Path) -> ClusterProfile:
    models = {"dir": str(tmp_path / "models-there"), "download": "airflow"}
    return profile(tmp_path, local_cluster, worker_env, models=models)


@pytest.fixture
def transport(local_cluster: ClusterInfo) -> SshTransport:
    return transport_to(clusters_own(local_cluster))


async def test_a_model_is_copied_whole_and_found_from_then_on(
    site: ClusterProfile, transport: SshTransport, snapshot: Path
) -> None:
    async with transport:
        path = Path(await upload_model(transport, site, "org/name", snapshot))
        assert path == Path(site.models.dir) / "org--name" / COMMIT
        for name in ("config.json", "model.safetensors", "deep/more.json"):
            assert (path / name).read_bytes() == (snapshot / name).read_bytes()
        assert await resolve_model(transport, site, "org/name", COMMIT) == str(path)
    assert [one.name for one in path.parent.iterdir()] == [COMMIT]
    assert (path / ".nightshard-used").exists()


async def test_two_runs_copy_a_model_once(
    site: ClusterProfile,
    transport: SshTransport,
    snapshot: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_upload, "WAIT_S", 0.05)
    sent: list[PurePosixPath] = []
    put_file = transport.put_file

    async def counted(path: PurePosixPath, local: Path) -> None:
        sent.append(path)
        await put_file(path, local)

    monkeypatch.setattr(transport, "put_file", counted)
    async with transport:
        both = [upload_model(transport, site, "org/name", snapshot) for _ in range(2)]
        assert len(set(await asyncio.gather(*both))) == 1
    assert len(sent) == 3


async def test_a_copy_that_another_run_ends_meanwhile_is_found(
    site: ClusterProfile,
    transport: SshTransport,
    snapshot: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exists = transport.exists
    looked: list[PurePosixPath] = []

    async def ends_after_the_first_look(path: PurePosixPath) -> bool:
        looked.append(path)
        if len(looked) > 1:
            return await exists(path)
        await upload_model(transport, site, "org/name", snapshot)
        return False

    monkeypatch.setattr(transport, "exists", ends_after_the_first_look)
    async with transport:
        path = Path(await upload_model(transport, site, "org/name", snapshot))
    assert [one.name for one in path.parent.iterdir()] == [COMMIT]
    assert {one.name for one in path.iterdir()} == {"config.json", "model.safetensors", "deep"}


async def test_a_copy_that_was_cut_goes_on_where_it_was(
    site: ClusterProfile,
    transport: SshTransport,
    snapshot: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_file = transport.put_file
    sent: list[str] = []

    async def cut(path: PurePosixPath, local: Path) -> None:
        if sent:
            raise ConnectionError("the line is dead")
        sent.append(path.name)
        await put_file(path, local)

    async with transport:
        with monkeypatch.context() as broken:
            broken.setattr(transport, "put_file", cut)
            with pytest.raises(ConnectionError):
                await upload_model(transport, site, "org/name", snapshot)
        # What a run may load is not there yet, and the lock is given back.
        folder = Path(site.models.dir) / "org--name"
        assert [one.name for one in folder.iterdir()] == [f"{COMMIT}.part"]

        async def noted(path: PurePosixPath, local: Path) -> None:
            sent.append(path.name)
            await put_file(path, local)

        monkeypatch.setattr(transport, "put_file", noted)
        await upload_model(transport, site, "org/name", snapshot)
    assert sorted(sent) == sorted(["config.json", "model.safetensors", "more.json"])


async def test_a_disk_without_room_is_said_before_anything_is_copied(
    site: ClusterProfile,
    transport: SshTransport,
    snapshot: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    huge = snapshot / "huge.safetensors"
    with huge.open("wb") as file:
        file.truncate(1 << 43)
    monkeypatch.setattr(model_upload, "_sha256", lambda _: "0")
    async with transport:
        with pytest.raises(UserError, match=r"takes 8192\.0 GiB .* `nightshard models clean`"):
            await upload_model(transport, site, "org/name", snapshot)


async def test_the_lock_of_a_copy_that_died_is_taken_over(
    site: ClusterProfile, transport: SshTransport, snapshot: Path
) -> None:
    lock = Path(site.models.dir) / "org--name" / f"{COMMIT}.lock"
    lock.mkdir(parents=True)
    os.utime(lock, (0, 0))
    async with transport:
        await upload_model(transport, site, "org/name", snapshot)
    assert not lock.exists()


@pytest.fixture
def stored(site: ClusterProfile) -> list[Path]:
    """Two fetched models, one in each layout, and a folder of somebody's."""
    root = Path(site.models.dir)
    plain = root / "org--name" / COMMIT
    cached = root / "models--org--other" / "snapshots" / COMMIT
    for folder in (plain, cached, root / "mine"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (plain / ".nightshard-used").touch()
    os.utime(plain / ".nightshard-used", (1000, 1000))
    os.utime(cached, (2000, 2000))
    return [plain, root / "models--org--other"]


async def test_fetched_models_are_listed_with_their_last_use_and_removed(
    site: ClusterProfile, transport: SshTransport, stored: list[Path]
) -> None:
    async with transport:
        found = await list_models(transport, site)
        assert {(one.path, one.used_at) for one in found} == {
            (str(stored[0]), 1000.0),
            (str(stored[1]), 2000.0),
        }
        assert all(one.size > 0 for one in found)
        await remove(transport, site, found)
        assert await list_models(transport, site) == []
    assert (Path(site.models.dir) / "mine").exists()


async def test_nothing_outside_of_the_models_folder_is_ever_removed(
    site: ClusterProfile, transport: SshTransport, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    for path in (str(tmp_path / "precious"), f"{site.models.dir}/../precious", site.models.dir):
        with pytest.raises(UserError, match="left alone"):
            await remove(transport, site, [StoredModel(path, 1, time.time())])
    assert (tmp_path / "precious").exists()
