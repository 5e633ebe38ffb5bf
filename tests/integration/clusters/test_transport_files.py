"""Commands and files behave alike over asyncssh and over a held OpenSSH login, on real sshds."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import string
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path, PurePosixPath

import asyncssh
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.faulty_proxy import FaultyProxy
from support.sshd import Sshd, clusters_own, held_login, short_folder

from nightshard.clusters.errors import RemoteDiskFullError, TransportError
from nightshard.clusters.held_socket import HeldSocket
from nightshard.clusters.login import Login, log_in
from nightshard.clusters.openssh import OpenSshTransport
from nightshard.clusters.openssh_files import MISSING, RENAME
from nightshard.clusters.ssh import SshTransport
from nightshard.clusters.transfer import CHUNK, IN_FLIGHT, part_of
from nightshard.core.errors import UserError
from nightshard.local.info import ClusterInfo

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

Either = SshTransport | OpenSshTransport

MIB = 2**20
LARGE = 40 * MIB + 12_345
REWIND = (IN_FLIGHT + 1) * CHUNK
OVERHEAD = 2 * MIB  # of logins, packets and retransmitted blocks in flight


def direct(sshd: Sshd) -> SshTransport:
    login = Login(sshd.endpoint, key_file=sshd.key_file, agent=False)

    async def connect() -> asyncssh.SSHClientConnection:
        return await log_in(login)

    return SshTransport(connect, login.endpoint)


@pytest.fixture(scope="module")
def sshd(local_cluster: ClusterInfo) -> Sshd:
    return clusters_own(local_cluster)


@pytest.fixture(scope="module")
def held(sshd: Sshd) -> Iterator[HeldSocket]:
    with short_folder() as folder, held_login(sshd, folder) as (socket, _):
        yield socket


@pytest.fixture(scope="module")
def both(sshd: Sshd, held: HeldSocket) -> tuple[Sshd, HeldSocket]:
    return sshd, held


@pytest.fixture(params=["asyncssh", "held login"])
async def transport(request: pytest.FixtureRequest, sshd: Sshd) -> AsyncIterator[Either]:
    if request.param == "asyncssh":
        async with direct(sshd) as opened:
            yield opened
    else:
        yield OpenSshTransport(request.getfixturevalue("held"))


@pytest.fixture
def remote(tmp_path: Path) -> PurePosixPath:
    folder = tmp_path / "remote"
    folder.mkdir()
    return PurePosixPath(folder)


def listing(folder: PurePosixPath) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


# Commands


@pytest.mark.parametrize("status", [0, 1, 77, 127, 254, 255])
async def test_a_command_keeps_its_own_exit_status(transport: Either, status: int) -> None:
    result = await transport.run(f"echo out; echo err >&2; exit {status}")
    assert (result.stdout, result.stderr.strip(), result.exit_status) == ("out\n", "err", status)


async def test_standard_input_reaches_the_command(transport: Either) -> None:
    text = "a 'b' $HOME \\ ü\n" * 20_000
    assert (await transport.run(["cat"], stdin=text, timeout_s=10)).stdout == text
    assert (await transport.run(["cat"], timeout_s=10)).stdout == ""


async def test_a_command_that_does_not_read_its_input_ends(transport: Either) -> None:
    text = "a 'b' $HOME \\ ü\n" * 20_000
    assert (await transport.run(["true"], stdin=text, timeout_s=20)).ok


async def test_a_killed_command_has_no_good_outcome(transport: Either) -> None:
    try:
        result = await transport.run("kill -9 $$")
    except TransportError:
        return
    assert result.exit_status == 137


async def test_a_command_that_takes_too_long_is_given_up(transport: Either) -> None:
    with pytest.raises(TransportError, match=r"did not answer within 0\.3 s"):
        await transport.run(["sleep", "10"], timeout_s=0.3)
    assert (await transport.run(["true"])).ok


async def test_many_commands_at_once_stay_within_the_sessions(transport: Either) -> None:
    results = await asyncio.gather(*(transport.run(["echo", str(i)]) for i in range(12)))
    assert [result.stdout for result in results] == [f"{i}\n" for i in range(12)]


# Names and small files

nasty_names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda name: name not in {".", ".."} and len(name.encode()) <= 255)
shell_words = st.text(string.punctuation.replace("/", "") + " \t\n'\"$`\\*~-", min_size=1).filter(
    lambda name: name not in {".", ".."} and len(name) <= 200
)


@pytest.mark.parametrize("kind", ["asyncssh", "held login"])
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=nasty_names | shell_words, data=st.binary(max_size=200))
def test_any_name_and_any_bytes_come_back(
    name: str, data: bytes, kind: str, both: tuple[Sshd, HeldSocket], tmp_path: Path
) -> None:
    sshd, socket = both
    folder = tmp_path / hashlib.sha256(os.urandom(8)).hexdigest()[:8]
    folder.mkdir()
    path = PurePosixPath(folder, name)

    async def work(opened: Either) -> None:
        assert await opened.get_bytes(path) is None
        assert not await opened.exists(path)
        assert await opened.create_bytes(path, data)
        assert not await opened.create_bytes(path, b"other")
        assert await opened.exists(path)
        assert await opened.get_bytes(path) == data
        await opened.put_bytes(path, data + b"!")
        await opened.get_file(path, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data + b"!"
        assert (await opened.run(["cat", str(path)])).ok
        assert listing(PurePosixPath(folder)) == [name]

    async def main() -> None:
        if kind == "asyncssh":
            async with direct(sshd) as opened:
                await work(opened)
        else:
            await work(OpenSshTransport(socket))

    asyncio.run(main())


async def test_a_name_of_255_bytes_is_no_trouble(transport: Either, remote: PurePosixPath) -> None:
    path = remote / ("ü" * 127 + "x")
    await transport.put_bytes(path, b"data")
    assert await transport.create_bytes(remote / ("y" * 255), b"data")
    assert await transport.get_bytes(path) == b"data"


async def test_one_of_many_creates_a_file(transport: Either, remote: PurePosixPath) -> None:
    path = remote / "claim"
    won = await asyncio.gather(
        *(transport.create_bytes(path, f"{i}\n".encode() * 1000) for i in range(8))
    )
    assert sum(won) == 1
    assert await transport.get_bytes(path) == f"{won.index(True)}\n".encode() * 1000
    assert listing(remote) == ["claim"]


async def test_a_missing_folder_and_a_missing_file_are_named(
    transport: Either, remote: PurePosixPath, tmp_path: Path
) -> None:
    path = remote / "absent" / "file"
    with pytest.raises(TransportError, match=r"writing .*absent/file on the cluster failed"):
        await transport.put_bytes(path, b"x")
    with pytest.raises(TransportError, match=r"reading .*absent/file .* No such file"):
        await transport.get_file(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# Large files


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "weights.bin"
    path.write_bytes(os.urandom(LARGE))
    return path


@contextlib.asynccontextmanager
async def through(
    proxy: FaultyProxy, kind: str, sshd: Sshd
) -> AsyncIterator[Callable[[], contextlib.AbstractAsyncContextManager[Either]]]:
    """Give what logs in again through the proxy, as often as a person or Airflow would."""

    @contextlib.asynccontextmanager
    async def again() -> AsyncIterator[Either]:
        if kind == "asyncssh":
            async with direct(sshd.at(proxy.port)) as opened:
                yield opened
        else:
            with short_folder() as folder:
                hold = held_login(sshd.at(proxy.port), folder)
                socket, _ = await asyncio.to_thread(hold.__enter__)
                try:
                    yield OpenSshTransport(socket)
                finally:
                    await asyncio.to_thread(hold.__exit__, None, None, None)

    yield again


@pytest.mark.parametrize("kind", ["asyncssh", "held login"])
async def test_an_upload_that_was_cut_goes_on_at_the_next_call(
    kind: str, sshd: Sshd, large: Path, remote: PurePosixPath
) -> None:
    path = remote / "weights.bin"
    async with (
        FaultyProxy("127.0.0.1", sshd.endpoint.port) as proxy,
        through(proxy, kind, sshd) as again,
    ):
        async with again() as opened:
            proxy.cut_after(30 * MIB, "up", then_refuse=True)
            with pytest.raises((TransportError, UserError)):
                await opened.put_file(path, large)
        (part,) = listing(remote)
        assert part.endswith(".part")

        await proxy.accept()
        before = proxy.passed["up"]
        async with again() as opened:
            await opened.put_file(path, large)
        sent = proxy.passed["up"] - before

    assert await same(Path(path), large)
    assert listing(remote) == ["weights.bin"]
    assert sent < LARGE - 30 * MIB + REWIND + OVERHEAD


@pytest.mark.parametrize("kind", ["asyncssh", "held login"])
async def test_a_download_that_was_cut_goes_on_at_the_next_call(
    kind: str, sshd: Sshd, large: Path, tmp_path: Path
) -> None:
    source = PurePosixPath(large)
    copy = tmp_path / "copy" / "weights.bin"
    copy.parent.mkdir()
    async with (
        FaultyProxy("127.0.0.1", sshd.endpoint.port) as proxy,
        through(proxy, kind, sshd) as again,
    ):
        async with again() as opened:
            proxy.cut_after(30 * MIB, "down", then_refuse=True)
            with pytest.raises((TransportError, UserError)):
                await opened.get_file(source, copy)
        assert not copy.exists()

        await proxy.accept()
        before = proxy.passed["down"]
        async with again() as opened:
            await opened.get_file(source, copy)
        received = proxy.passed["down"] - before

    assert await same(copy, large)
    assert listing(PurePosixPath(copy.parent)) == ["weights.bin"]
    assert received < LARGE - 30 * MIB + REWIND + OVERHEAD


async def test_a_single_cut_is_mended_within_the_call(
    sshd: Sshd, large: Path, remote: PurePosixPath, tmp_path: Path
) -> None:
    async with FaultyProxy("127.0.0.1", sshd.endpoint.port) as proxy:
        async with direct(sshd.at(proxy.port)) as opened:
            proxy.cut_after(20 * MIB, "up")
            await opened.put_file(remote / "w", large)
            proxy.cut_after(20 * MIB, "down")
            await opened.get_file(remote / "w", tmp_path / "copy")
        assert (proxy.cuts, proxy.accepted) == (2, 3)
        assert proxy.passed["up"] < LARGE + REWIND + OVERHEAD

    assert await same(tmp_path / "copy", large)


async def test_a_damaged_beginning_is_sent_again(
    transport: Either, large: Path, remote: PurePosixPath, tmp_path: Path
) -> None:
    digest = await asyncio.to_thread(digest_of, large)
    for target in (remote, PurePosixPath(tmp_path)):
        part = Path(part_of(target / "w", digest))
        await asyncio.to_thread(part.write_bytes, bytes(30 * MIB))

    await transport.put_file(remote / "w", large)
    await transport.get_file(remote / "w", tmp_path / "w")

    assert await same(Path(remote / "w"), large)
    assert await same(tmp_path / "w", large)
    assert listing(remote) == ["w"]


async def test_uploads_of_one_file_at_once_do_no_harm(
    transport: Either, large: Path, remote: PurePosixPath
) -> None:
    await asyncio.gather(*(transport.put_file(remote / "w", large) for _ in range(4)))

    assert await same(Path(remote / "w"), large)
    assert listing(remote) == ["w"]


async def test_a_part_that_another_upload_moves_just_now_is_no_failure(
    held: HeldSocket, remote: PurePosixPath, tmp_path: Path
) -> None:
    # An mv before which somebody else's came.
    Path(remote / ".w.part").touch()
    faster = tmp_path / "mv"
    faster.write_text(
        f'#!/bin/sh\n{shutil.which("mv")} "$3" "$4"\nexec {shutil.which("mv")} "$@"\n'
    )
    faster.chmod(0o755)
    script = f"PATH={tmp_path}:$PATH; {RENAME}"
    paths = (str(remote / ".w.part"), str(remote / "w"))
    result = await OpenSshTransport(held).run(["sh", "-c", script, "sh", *paths])
    assert result.exit_status == MISSING
    assert listing(remote) == ["w"]


async def test_a_file_that_is_there_already_is_not_sent_again(
    sshd: Sshd, large: Path, remote: PurePosixPath
) -> None:
    async with (
        FaultyProxy("127.0.0.1", sshd.endpoint.port) as proxy,
        direct(sshd.at(proxy.port)) as opened,
    ):
        await opened.put_file(remote / "w", large)
        before = proxy.passed["up"]
        await opened.put_file(remote / "w", large)
        assert proxy.passed["up"] - before < OVERHEAD


async def test_a_file_that_changes_during_every_try_is_named(
    sshd: Sshd, large: Path, remote: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightshard.clusters.transfer.file_sha256", lambda _path: "0" * 64)
    async with direct(sshd) as opened:
        with pytest.raises(TransportError, match=r"/w arrived damaged on the cluster twice"):
            await opened.put_file(remote / "w", large)
    assert listing(remote) == []


# Full disks


@pytest.fixture
def tiny_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PurePosixPath]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", request.param, "none", str(folder)]
    if (
        mount is None
        or subprocess.run([mount, *options], check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    yield PurePosixPath(folder)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("tiny_disk", ["size=64k"], indirect=True)
async def test_a_small_file_on_a_full_disk_is_named(
    transport: Either, tiny_disk: PurePosixPath
) -> None:
    with pytest.raises(RemoteDiskFullError, match="because the disk is full"):
        await transport.put_bytes(tiny_disk / "file", b"x" * MIB)
    with pytest.raises(RemoteDiskFullError, match="because the disk is full"):
        await transport.create_bytes(tiny_disk / "file", b"x" * MIB)
    assert listing(tiny_disk) == []


@pytest.mark.parametrize("tiny_disk", ["size=16m"], indirect=True)
async def test_a_large_file_on_a_full_disk_is_named_and_removed(
    transport: Either, large: Path, tiny_disk: PurePosixPath
) -> None:
    with pytest.raises(RemoteDiskFullError, match=r"the disk is full .*free some space there"):
        await transport.put_file(tiny_disk / "file", large)
    assert listing(tiny_disk) == []


@pytest.mark.parametrize("tiny_disk", ["size=1m,nr_inodes=3"], indirect=True)
async def test_a_disk_without_inodes_is_named(transport: Either, tiny_disk: PurePosixPath) -> None:
    # The root folder is the first of the three.
    await transport.run(["touch", str(tiny_disk / "a"), str(tiny_disk / "b")])
    with pytest.raises(RemoteDiskFullError, match="no room for more files"):
        await transport.put_bytes(tiny_disk / "c", b"x")


@pytest.mark.parametrize("tiny_disk", ["size=16m"], indirect=True)
async def test_a_full_disk_here_is_not_taken_for_a_broken_connection(
    transport: Either, large: Path, tiny_disk: PurePosixPath
) -> None:
    with pytest.raises(UserError, match="cannot be written on this machine: No space left"):
        await transport.get_file(PurePosixPath(large), Path(tiny_disk, "file"))


async def same(first: Path, second: Path) -> bool:
    return await asyncio.to_thread(lambda: digest_of(first) == digest_of(second))


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
