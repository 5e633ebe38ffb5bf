"""Logging in on real sshds: through jump hosts, with agents, over a held login, and failing."""

import asyncio
import contextlib
import shlex
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from support.faulty_proxy import FaultyProxy
from support.sshd import Sshd, clusters_own, held_login, running_agent, running_sshd, short_folder

from nightshard.clusters.errors import LoginError, LoginFailure, TransportError
from nightshard.clusters.held_socket import HeldSocket
from nightshard.clusters.login import Endpoint, Login, connector, log_in
from nightshard.clusters.openssh import OpenSshTransport
from nightshard.clusters.shared import shared
from nightshard.clusters.ssh import SshTransport
from nightshard.local.info import ClusterInfo

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

UNREACHABLE = LoginFailure.JUMP_CANNOT_REACH


def by_key(sshd: Sshd, **changes: object) -> Login:
    values: dict[str, object] = {"key_file": sshd.key_file, "agent": False, **changes}
    return Login(sshd.endpoint, **values)  # type: ignore[arg-type]


def transport(login: Login) -> SshTransport:
    async def connect() -> asyncssh.SSHClientConnection:
        return await log_in(login)

    return SshTransport(connect, login.endpoint)


async def failure_of(login: Login) -> LoginError:
    async with transport(login) as opened:
        with pytest.raises(LoginError) as caught:
            await opened.run(["true"])
    return caught.value


@pytest.fixture
def target(local_cluster: ClusterInfo) -> Sshd:
    return clusters_own(local_cluster)


@pytest.fixture
def jump_host(local_cluster: ClusterInfo, tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(local_cluster, tmp_path / "jump") as sshd:
        yield sshd


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return make_key(tmp_path / "stranger")


def make_key(path: Path, passphrase: str | None = None) -> Path:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(path), passphrase=passphrase)
    path.chmod(0o600)
    return path


# Jump hosts


async def test_a_cluster_is_reached_through_two_jump_hosts(
    local_cluster: ClusterInfo, target: Sshd, jump_host: Sshd, tmp_path: Path
) -> None:
    with running_sshd(local_cluster, tmp_path / "outer") as outer:
        login = by_key(target, jump=by_key(jump_host, jump=by_key(outer)))
        async with transport(login) as opened:
            assert (await opened.run(["echo", "hello"])).stdout == "hello\n"
        assert "Accepted publickey" in outer.log.read_text()
        assert "Accepted publickey" in jump_host.log.read_text()


async def test_a_connector_takes_a_jump_host(local_cluster: ClusterInfo, jump_host: Sshd) -> None:
    info = local_cluster
    connect = connector(
        info.ssh_host,
        info.ssh_port,
        info.ssh_user,
        info.ssh_key,
        info.known_hosts,
        jump=by_key(jump_host),
    )
    async with SshTransport(connect) as opened:
        assert (await opened.run(["echo", "hello"])).ok
    assert "Accepted publickey" in jump_host.log.read_text()


async def test_hanging_up_leaves_no_connection_to_the_jump_host(
    target: Sshd, jump_host: Sshd
) -> None:
    async with FaultyProxy("127.0.0.1", jump_host.endpoint.port) as proxy:
        login = by_key(target, jump=by_key(jump_host.at(proxy.port)))
        async with transport(login) as opened:
            await opened.run(["true"])
            assert proxy.connections == 1
        await until(lambda: proxy.connections == 0)


async def test_a_jump_host_that_goes_away_is_found_again(target: Sshd, jump_host: Sshd) -> None:
    async with FaultyProxy("127.0.0.1", jump_host.endpoint.port) as proxy:
        login = by_key(target, jump=by_key(jump_host.at(proxy.port)))
        async with transport(login) as opened:
            await opened.run(["true"])
            proxy.cut_all()
            with pytest.raises(TransportError):
                await opened.run(["true"])
            assert (await opened.run(["echo", "again"])).stdout == "again\n"


def hop_unknown(hop: Login, stranger: Path) -> Login:
    return replace(hop, endpoint=replace(hop.endpoint, known_hosts=b""))


def hop_changed(hop: Login, stranger: Path) -> Login:
    key = asyncssh.read_private_key(str(stranger)).export_public_key().decode().split()
    line = f"[{hop.endpoint.host}]:{hop.endpoint.port} {key[0]} {key[1]}\n".encode()
    return replace(hop, endpoint=replace(hop.endpoint, known_hosts=line))


def hop_denies(hop: Login, stranger: Path) -> Login:
    return replace(hop, key_file=stranger)


def hop_refuses(hop: Login, stranger: Path) -> Login:
    return replace(hop, endpoint=replace(hop.endpoint, port=free_port()))


@pytest.mark.parametrize(
    ("spoil", "failure"),
    [
        (hop_unknown, LoginFailure.HOST_KEY_UNKNOWN),
        (hop_changed, LoginFailure.HOST_KEY_CHANGED),
        (hop_denies, LoginFailure.PERMISSION_DENIED),
        (hop_refuses, LoginFailure.REFUSED),
    ],
)
async def test_a_failure_at_the_jump_host_names_it(
    target: Sshd, jump_host: Sshd, stranger: Path, spoil, failure: LoginFailure
) -> None:
    hop = spoil(by_key(jump_host), stranger)

    error = await failure_of(by_key(target, jump=hop))

    assert error.failure is failure
    assert f"port {hop.endpoint.port} (the jump host on the way to 127.0.0.1)" in str(error)


@pytest.mark.parametrize(
    ("spoil", "failure"),
    [
        (hop_unknown, LoginFailure.HOST_KEY_UNKNOWN),
        (hop_changed, LoginFailure.HOST_KEY_CHANGED),
        (hop_denies, LoginFailure.PERMISSION_DENIED),
        (hop_refuses, UNREACHABLE),
    ],
)
async def test_a_failure_behind_the_jump_host_names_the_cluster(
    target: Sshd, jump_host: Sshd, stranger: Path, spoil, failure: LoginFailure
) -> None:
    login = spoil(by_key(target, jump=by_key(jump_host)), stranger)

    error = await failure_of(login)

    assert error.failure is failure
    assert f"port {login.endpoint.port} (through 127.0.0.1)" in str(error)


async def test_a_jump_host_that_forbids_going_on_is_named(
    local_cluster: ClusterInfo, target: Sshd, tmp_path: Path
) -> None:
    with running_sshd(local_cluster, tmp_path / "closed", "AllowTcpForwarding no") as closed:
        error = await failure_of(by_key(target, jump=by_key(closed)))

    assert error.failure is LoginFailure.FORWARDING_FORBIDDEN


# Keys and agents


async def test_the_keys_of_an_agent_open_the_login(
    target: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_agent(folder, target.key_file) as agent:
        for wanted in (agent, True):
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
            async with transport(Login(target.endpoint, agent=wanted)) as opened:
                assert (await opened.run(["true"])).ok


async def test_each_trouble_with_an_agent_has_its_sentence(
    target: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    unset = await failure_of(Login(target.endpoint, agent=True))
    dead = await failure_of(Login(target.endpoint, agent=folder / "nobody"))
    with running_agent(folder) as agent:
        empty = await failure_of(Login(target.endpoint, agent=agent))

    assert (unset.failure, dead.failure) == (LoginFailure.NO_AGENT, LoginFailure.NO_AGENT)
    assert "SSH_AUTH_SOCK is not set" in str(unset)
    assert str(folder / "nobody") in str(dead)
    assert empty.failure is LoginFailure.AGENT_EMPTY


async def test_an_agent_with_too_many_keys_is_named(
    target: Sshd, folder: Path, tmp_path: Path
) -> None:
    keys = [make_key(tmp_path / f"key{i}") for i in range(7)]
    with running_agent(folder, *keys) as agent:
        error = await failure_of(Login(target.endpoint, agent=agent))

    assert error.failure is LoginFailure.TOO_MANY_KEYS
    assert "fewer keys in the agent" in str(error)


@pytest.mark.parametrize(
    ("passphrase", "failure"),
    [(None, LoginFailure.KEY_ENCRYPTED), ("wrong", LoginFailure.KEY_NOT_OPENED)],
)
@pytest.mark.parametrize("how", ["file", "text"])
async def test_a_locked_key_has_its_sentence(
    target: Sshd, tmp_path: Path, how: str, passphrase: str | None, failure: LoginFailure
) -> None:
    locked = make_key(tmp_path / "locked", "right")
    given = {"key_file": locked} if how == "file" else {"private_key": locked.read_text()}

    error = await failure_of(Login(target.endpoint, passphrase=passphrase, **given))

    assert error.failure is failure
    assert "private_key_passphrase" in str(error)


async def test_a_passphrase_opens_a_key(target: Sshd, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    asyncssh.read_private_key(str(target.key_file)).write_private_key(
        str(locked), passphrase="right"
    )
    async with transport(Login(target.endpoint, key_file=locked, passphrase="right")) as opened:
        assert (await opened.run(["true"])).ok


# What a site may answer


@contextlib.asynccontextmanager
async def saying(text: bytes) -> AsyncIterator[Endpoint]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], "me", b"")


@pytest.mark.parametrize(
    ("text", "failure", "shown"),
    [
        (
            b"System is down for maintenance until Monday.\r\n",
            LoginFailure.SITE_MESSAGE,
            "said: System is down for maintenance until Monday.",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", LoginFailure.SITE_MESSAGE, "HTTP/1.1 400"),
        (b"\x16\x03\x01\x00\xff" * 40, LoginFailure.SITE_MESSAGE, "check host and port"),
        (b"SSH-1.5-old\r\n", LoginFailure.NOT_SSH, "does not speak SSH as expected"),
        (b"x" * 20000 + b"\n", LoginFailure.NOT_SSH, "does not speak SSH as expected"),
        (b"", LoginFailure.DROPPED, "MaxStartups"),
    ],
)
async def test_what_is_no_ssh_greeting_is_shown(
    text: bytes, failure: LoginFailure, shown: str, stranger: Path
) -> None:
    async with saying(text) as endpoint:
        error = await failure_of(Login(endpoint, key_file=stranger))

    assert error.failure is failure
    assert shown in str(error)
    assert str(error).isprintable()


async def test_too_many_logins_at_a_time_are_named(
    local_cluster: ClusterInfo, tmp_path: Path
) -> None:
    with running_sshd(local_cluster, tmp_path / "busy", "MaxStartups 1") as busy:
        _, waiting = await asyncio.open_connection("127.0.0.1", busy.endpoint.port)
        error = await failure_of(by_key(busy))
        waiting.close()

    assert error.failure in (LoginFailure.DROPPED, LoginFailure.SITE_MESSAGE)
    assert error.failure.passing
    assert "MaxStartups" in str(error)


async def test_a_sites_banner_is_shown_where_it_denies_a_login(
    local_cluster: ClusterInfo, stranger: Path, tmp_path: Path
) -> None:
    banner = tmp_path / "banner"
    banner.write_text("Accounts of project X\nare closed.\n")
    with running_sshd(local_cluster, tmp_path / "site", f"Banner {banner}") as site:
        error = await failure_of(by_key(site, key_file=stranger))

    assert error.failure is LoginFailure.PERMISSION_DENIED
    assert "(it said: Accounts of project X are closed.)" in str(error)


async def test_a_node_closed_to_users_is_no_failed_command(
    local_cluster: ClusterInfo, tmp_path: Path, folder: Path
) -> None:
    # As sshd does by /etc/nologin, which does not stop root.
    closed = "ForceCommand echo 'System is down until noon' >&2; exit 254"
    with (
        running_sshd(local_cluster, tmp_path / "closed", closed) as site,
        held_login(site, folder) as (held, _),
    ):
        direct = await failure_of(by_key(site))
        with pytest.raises(LoginError) as over_socket:
            await OpenSshTransport(held).run(["true"])

    for error in (direct, over_socket.value):
        assert error.failure is LoginFailure.MAINTENANCE
        assert "System is down until noon" in str(error)


async def test_a_host_that_never_answers_is_given_up(target: Sshd) -> None:
    async with FaultyProxy("127.0.0.1", target.endpoint.port) as proxy:
        proxy.blackhole()
        error = await failure_of(by_key(target.at(proxy.port), timeout_s=0.5))

    assert error.failure is LoginFailure.TIMED_OUT


async def test_a_dead_line_is_noticed_by_keep_alives(
    target: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightshard.clusters.login.KEEPALIVE_S", 0.1)
    async with (
        FaultyProxy("127.0.0.1", target.endpoint.port) as proxy,
        transport(by_key(target.at(proxy.port))) as opened,
    ):
        await opened.run(["true"])
        proxy.blackhole()
        with pytest.raises(TransportError, match="The connection to the cluster broke"):
            await opened.run(["true"])
        await proxy.accept()
        assert (await opened.run(["true"])).ok


async def test_128_users_at_once_log_in_once(target: Sshd) -> None:
    async with FaultyProxy("127.0.0.1", target.endpoint.port) as proxy:
        login = by_key(target.at(proxy.port))

        everyone = asyncio.Barrier(128)

        async def user(number: int) -> None:
            async with shared("here", lambda: transport(login), idle_s=0) as opened:
                await everyone.wait()
                if number % 8 == 0:
                    assert (await opened.run(["echo", str(number)])).stdout == f"{number}\n"

        await asyncio.gather(*(user(number) for number in range(128)))
        assert proxy.accepted == 1
        await until(lambda: proxy.connections == 0)


# A login that a person holds


async def test_a_held_login_serves_without_a_login_of_its_own(
    local_cluster: ClusterInfo, tmp_path: Path, folder: Path
) -> None:
    with running_sshd(local_cluster, tmp_path / "site") as site:
        with held_login(site, folder) as (held, _):
            async with OpenSshTransport(held) as opened:
                assert (await opened.run(["echo", "hello"])).stdout == "hello\n"
            assert (await opened.run(["true"])).ok, "hanging up leaves the person's login"
        assert site.log.read_text().count("Accepted publickey") == 1


async def test_a_held_login_that_is_gone_is_not_made_again(
    local_cluster: ClusterInfo, tmp_path: Path, folder: Path
) -> None:
    with running_sshd(local_cluster, tmp_path / "site") as site:
        with held_login(site, folder) as (held, _):
            opened = OpenSshTransport(held)
            await opened.run(["true"])
        before = site.log.read_text().count("Connection from")
        with pytest.raises(LoginError) as caught:
            await opened.run(["true"])
        assert site.log.read_text().count("Connection from") == before

        assert caught.value.failure is LoginFailure.SOCKET_GONE
        assert f"log in again with: ssh -M -S {held.path} -N -f" in str(caught.value)
        with held_login(site, folder):
            assert (await opened.run(["true"])).ok


async def test_a_held_login_that_ends_during_a_command_leaves_its_outcome_open(
    target: Sshd, folder: Path
) -> None:
    started = folder / "started"
    with held_login(target, folder) as (held, person):
        command = f"echo > {shlex.quote(str(started))}; sleep 20"
        running = asyncio.create_task(OpenSshTransport(held).run(command))
        await until(started.exists)
        person.kill()
        with pytest.raises(TransportError, match="before the remote command reported its end"):
            await running


async def test_a_held_login_to_a_jump_host_opens_the_way_on(
    target: Sshd, jump_host: Sshd, folder: Path
) -> None:
    with held_login(jump_host, folder) as (held, _):
        async with transport(by_key(target, jump=held)) as opened:
            assert (await opened.run(["echo", "hello"])).stdout == "hello\n"
    error = await failure_of(by_key(target, jump=held))
    assert error.failure is LoginFailure.SOCKET_GONE
    assert "(the jump host on the way to 127.0.0.1)" in str(error)


async def test_a_stale_socket_is_a_login_that_is_gone(target: Sshd, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(folder / "held"))
    with pytest.raises(LoginError) as caught:
        await OpenSshTransport(HeldSocket(folder / "held", target.endpoint)).run(["true"])
    assert caught.value.failure is LoginFailure.SOCKET_GONE


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not ready():  # noqa: ASYNC110 (it happens in another process)
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
