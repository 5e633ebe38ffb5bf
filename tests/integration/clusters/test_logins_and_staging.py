"""Each way in which a login or the staging can fail has its sentence."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from nightshard.clusters.errors import LoginError, LoginFailure, RemoteDiskFullError, TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.login import Endpoint, connector
from nightshard.clusters.models import ADAPTER_FILE, describe_model, resolve_model
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.ssh import SshTransport
from nightshard.clusters.staging import ensure_worker, preflight
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob
from nightshard.core.errors import UserError
from nightshard.core.run_params import split_revision
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.info import ClusterInfo

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

WORKER_SOURCE = PROJECT_ROOT / "shard_worker" / "src"


def transport_to(info: ClusterInfo) -> SshTransport:
    return SshTransport(
        connector(info.ssh_host, info.ssh_port, info.ssh_user, info.ssh_key, info.known_hosts)
    )


@pytest.fixture
def other_key(tmp_path: Path) -> asyncssh.SSHKey:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "other"))
    key.write_public_key(str(tmp_path / "other.pub"))
    return key


def refused_port(info: ClusterInfo, tmp_path: Path) -> ClusterInfo:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return replace(info, ssh_port=free.getsockname()[1])


def changed_host_key(info: ClusterInfo, tmp_path: Path) -> ClusterInfo:
    stored = (tmp_path / "other.pub").read_text().split()
    known = tmp_path / "known_hosts"
    known.write_text(f"[{info.ssh_host}]:{info.ssh_port} {stored[0]} {stored[1]}\n")
    return replace(info, known_hosts=known)


def unknown_host_key(info: ClusterInfo, tmp_path: Path) -> ClusterInfo:
    known = tmp_path / "known_hosts"
    known.write_text("")
    return replace(info, known_hosts=known)


def no_host_key(info: ClusterInfo, tmp_path: Path) -> ClusterInfo:
    return replace(info, known_hosts=tmp_path / "absent")


def wrong_private_key(info: ClusterInfo, tmp_path: Path) -> ClusterInfo:
    return replace(info, ssh_key=tmp_path / "other")


def absent_private_key(info: ClusterInfo, tmp_path: Path) -> ClusterInfo:
    return replace(info, ssh_key=tmp_path / "absent")


def unknown_name(info: ClusterInfo, tmp_path: Path) -> ClusterInfo:
    return replace(info, ssh_host="login.invalid")


@pytest.mark.parametrize(
    ("spoil", "failure", "words"),
    [
        (refused_port, LoginFailure.REFUSED, "are refused; check the port"),
        (changed_host_key, LoginFailure.HOST_KEY_CHANGED, "HAS CHANGED and the login was stopped"),
        (unknown_host_key, LoginFailure.HOST_KEY_UNKNOWN, "is unknown; verify it with the site"),
        (no_host_key, LoginFailure.NO_HOST_KEY, "No host key is given"),
        (wrong_private_key, LoginFailure.PERMISSION_DENIED, "was denied; check the user name"),
        (absent_private_key, LoginFailure.UNUSABLE_KEY, "cannot be used; check key_file"),
        (unknown_name, LoginFailure.NAME_NOT_RESOLVED, "could not be resolved"),
    ],
)
@pytest.mark.usefixtures("other_key")
async def test_each_failed_login_has_its_sentence(
    local_cluster: ClusterInfo, tmp_path: Path, spoil, failure: LoginFailure, words: str
) -> None:
    async with transport_to(spoil(local_cluster, tmp_path)) as transport:
        with pytest.raises(LoginError) as caught:
            await transport.run(["true"])

    assert caught.value.failure is failure
    assert words in str(caught.value)


@pytest.mark.usefixtures("other_key")
async def test_a_changed_host_key_reaches_whoever_watches(
    local_cluster: ClusterInfo, tmp_path: Path
) -> None:
    info = changed_host_key(local_cluster, tmp_path)
    shard = WatchedShard(
        RunLayout(Path("/x"), "r"), 0, 1, ArrayJob("1", None, "ns-r-a1", 1), 1, "f"
    )
    poller = ClusterPoller(lambda: transport_to(info))

    with pytest.raises(LoginError, match="HAS CHANGED"):
        async for _ in poller.watch(shard):
            pass


async def test_values_reach_the_cluster_unharmed(runs) -> None:
    value = "a 'b' \"c\" $HOME `id` ; * \\ \n ü"

    result = await runs.transport.run(["printf", "%s", value])

    assert (result.stdout, result.exit_status) == (value, 0)


async def test_a_command_whose_connection_is_cut_is_never_a_success(runs) -> None:
    with pytest.raises(TransportError):
        await runs.transport.run("kill -9 $PPID; sleep 1")

    assert (await runs.transport.run(["echo", "again"])).stdout == "again\n"


async def test_a_command_that_takes_too_long_has_an_unknown_outcome(runs) -> None:
    with pytest.raises(TransportError, match=r"did not answer within 0\.2 s"):
        await runs.transport.run(["sleep", "5"], timeout_s=0.2)


async def test_a_file_is_created_by_one_of_two(runs) -> None:
    layout = runs.layout()
    await runs.transport.run(["mkdir", "-p", str(layout.run)])
    path = layout.submission("a1")

    assert await runs.transport.create_bytes(path, b"first")
    assert not await runs.transport.create_bytes(path, b"second")
    assert await runs.transport.get_bytes(path) == b"first"


async def test_files_come_and_go_whole(runs, tmp_path: Path) -> None:
    layout = runs.layout()
    await runs.transport.run(["mkdir", "-p", str(layout.run)])
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4096)

    await runs.transport.put_file(layout.spec, source)
    await runs.transport.put_file(layout.spec, source)
    await runs.transport.get_file(layout.spec, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (await runs.transport.run(["ls", "-A", str(layout.run)])).stdout == "spec.json\n"
    assert await runs.transport.get_bytes(layout.run / "absent") is None


async def test_a_full_disk_is_noticed_before_anything_is_staged(runs) -> None:
    layout = runs.layout()
    await preflight(runs.transport, runs.profile(), layout, bytes_needed=1)

    with pytest.raises(UserError, match=r"GiB free and the run needs 1073741824\.0 GiB"):
        await preflight(runs.transport, runs.profile(), layout, bytes_needed=2**60)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=64k,nr_inodes=20", "none", str(folder)]
    if (
        mount is None
        or subprocess.run([mount, *options], check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_that_fills_up_is_named(runs, tiny_disk: Path) -> None:
    layout = RunLayout(tiny_disk, "r")
    profile = runs.profile(workdir=str(tiny_disk))

    with pytest.raises(UserError, match=r"room for [0-9,]+ more files"):
        await preflight(runs.transport, profile, layout, bytes_needed=1, num_shards=50)
    with pytest.raises(RemoteDiskFullError, match="the disk is full"):
        await runs.transport.put_bytes(tiny_disk / "spec.json", b"x" * 2**20)
    assert (await runs.transport.run(["ls", "-A", str(tiny_disk)])).stdout == ""


async def test_a_work_folder_that_cannot_be_written_is_named(runs) -> None:
    layout = RunLayout(Path("/proc/nightshard"), "r")

    with pytest.raises(UserError, match=r"work folder /proc/nightshard .* cannot be written"):
        await preflight(runs.transport, runs.profile(), layout, bytes_needed=1)


async def test_the_worker_is_uploaded_once(runs) -> None:
    first = await ensure_worker(runs.transport, runs.profile(), WORKER_SOURCE)
    stamp = await runs.transport.run(["stat", "-c", "%i %Y", first])

    assert await ensure_worker(runs.transport, runs.profile(), WORKER_SOURCE) == first
    assert await runs.transport.run(["stat", "-c", "%i %Y", first]) == stamp


async def test_a_missing_python_is_named(runs) -> None:
    archive = await ensure_worker(runs.transport, runs.profile(), WORKER_SOURCE)
    profile = runs.profile(worker={"python": "/nowhere/bin/python"})

    with pytest.raises(UserError, match=r"/nowhere/bin/python on cluster 'test' cannot be run"):
        await describe_model(runs.transport, profile, archive, "/", engine="echo")


async def test_a_missing_package_is_named(runs, tmp_path: Path) -> None:
    package = tmp_path / "shard_worker"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import a_package_nobody_has")

    with pytest.raises(UserError, match="lacks the package a_package_nobody_has"):
        await ensure_worker(runs.transport, runs.profile(), tmp_path)


async def test_what_set_up_lines_print_does_not_spoil_an_answer(runs) -> None:
    worker = {"python": sys.executable, "setup": ["echo Welcome to the cluster"]}
    profile = runs.profile(worker=worker)
    archive = await ensure_worker(runs.transport, profile, WORKER_SOURCE)
    model = runs.info.shared / "some-model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text('{"max_position_embeddings": 2048}')

    described = await describe_model(runs.transport, profile, archive, str(model), engine="echo")

    assert (described.path, described.engine, described.max_model_len) == (str(model), "echo", 2048)


async def test_a_model_that_is_served_elsewhere_needs_no_folder(runs) -> None:
    profile = runs.profile()
    archive = await ensure_worker(runs.transport, profile, WORKER_SOURCE)
    name = "org/served at v2"
    described = await describe_model(runs.transport, profile, archive, name, engine="openai")
    assert described.revision == "served as org/served at v2"


async def test_a_model_is_found_by_folder_and_by_hub_id(runs) -> None:
    models = Path(runs.profile().models.dir)
    plain = models / "org--plain" / "main"
    cached = models / "models--org--cached"
    commit = "0123456789abcdef0123456789abcdef01234567"
    for folder in (plain, cached / "snapshots" / commit):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
    (cached / "refs").mkdir(exist_ok=True)
    (cached / "refs" / "main").write_text(commit)

    async def resolve(model: str, revision: str | None = None) -> str:
        return await resolve_model(runs.transport, runs.profile(), model, revision)

    assert await resolve(str(plain)) == str(plain)
    assert await resolve("org/plain") == str(plain)
    assert await resolve("org/cached") == str(cached / "snapshots" / commit)
    assert await resolve("org/cached", commit) == str(cached / "snapshots" / commit)


async def test_an_adapter_is_found_by_its_own_file(runs) -> None:
    adapter = Path(runs.profile().models.dir) / "org--adapter" / "v2"
    adapter.mkdir(parents=True)
    (adapter / ADAPTER_FILE).write_text("{}")
    name, revision = split_revision("org/adapter@v2")

    found = await resolve_model(runs.transport, runs.profile(), name, revision, holds=ADAPTER_FILE)

    assert found == str(adapter)
    with pytest.raises(UserError, match="org/adapter at revision v2 is not on cluster"):
        await resolve_model(runs.transport, runs.profile(), name, revision)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/nowhere/model", "The model folder /nowhere/model does not exist on cluster 'test'"),
        ("org/absent", "org/absent at revision main is not on cluster 'test'"),
        ("$(id)", "is no model; give an absolute folder on the cluster or a Hub id"),
        ("../../etc", "is no model"),
    ],
)
async def test_a_model_that_is_not_there_is_named(runs, model: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        await resolve_model(runs.transport, runs.profile(), model)

    assert words in str(caught.value)


async def test_a_failed_download_on_the_login_node_says_why(runs, tmp_path: Path) -> None:
    models = {"dir": str(tmp_path), "download": "login"}
    # Nothing listens there, so the outcome is the same with and without internet.
    setup = ["export HF_ENDPOINT=http://127.0.0.1:9 HF_HUB_DISABLE_TELEMETRY=1"]
    profile = runs.profile(models=models, worker={"python": sys.executable, "setup": setup})

    with pytest.raises(UserError, match="org/absent at revision main could not be fetched"):
        await resolve_model(runs.transport, profile, "org/absent")


async def test_an_endpoint_knows_its_own_host_key(local_cluster: ClusterInfo) -> None:
    info = local_cluster

    assert Endpoint(info.ssh_host, info.ssh_port, None, info.known_hosts).known()
    assert not Endpoint("another.host", 22, None, info.known_hosts).known()
