"""Logging in by asyncssh: keys, an agent, and jump hosts on the way."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh

from nightshard.clusters.errors import LoginError, LoginFailure
from nightshard.clusters.held_socket import HeldSocket
from nightshard.clusters.login_errors import Endpoint, login_error, sentence, words

__all__ = ["Connect", "Endpoint", "Login", "connector", "log_in", "login_error"]

Connect = Callable[[], Awaitable[asyncssh.SSHClientConnection]]

CONNECT_TIMEOUT_S = 20.0
KEEPALIVE_S = 30
KEEPALIVE_COUNT = 3
"""Keep-alives in a row without an answer after which the line is taken for dead."""

PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in to one host.

    Attributes:
        endpoint: the host; its ``known_hosts`` are the only keys that are trusted.
        key_file: private key; None leaves it to ``private_key``, the agent and the default keys.
        private_key: the key itself.
        passphrase: opens the key.
        password: for sites that take one.
        agent: True: the agent of SSH_AUTH_SOCK, which has to be there; a path: the agent at that
            socket; False: none; None: the agent of SSH_AUTH_SOCK where no key is named.
        jump: the login, or the held socket, that this host is reached through.
        default_keys: whether the user's ``~/.ssh/id_*`` are tried where nothing else is named.
        user_config: whether ``~/.ssh/config`` is read.
        ciphers: OpenSSH names in order of preference; empty leaves the choice to asyncssh.
        timeout_s: for the connection, the handshake and the login together.
    """

    endpoint: Endpoint
    key_file: Path | None = None
    private_key: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    agent: bool | Path | None = None
    jump: "Login | HeldSocket | None" = None
    default_keys: bool = True
    user_config: bool = False
    ciphers: tuple[str, ...] = ()
    timeout_s: float = CONNECT_TIMEOUT_S


def connector(
    host: str,
    port: int,
    username: str,
    key_file: Path,
    known_hosts: Path,
    *,
    jump: Login | HeldSocket | None = None,
) -> Connect:
    """Return what opens a connection with a key and strict host key checking.

    Args:
        host: host name or address.
        port: TCP port.
        username: remote user.
        key_file: private key.
        known_hosts: trusted host keys in OpenSSH's format.
        jump: what the host is reached through.
    """
    endpoint = Endpoint(host, port, username, known_hosts)
    login = Login(endpoint, key_file=key_file, agent=False, jump=jump)
    return lambda: log_in(login)


async def log_in(login: Login) -> asyncssh.SSHClientConnection:
    """Open the connection, through its jump hosts first.

    The connections to the jump hosts are closed with it.

    Raises:
        LoginError: a login failed; the sentence names the hop.
        TransportError: a connection failed in a way that has no sentence of its own.
    """
    jump = login.jump
    endpoint = login.endpoint
    through: asyncssh.SSHClientConnection | None = None
    if jump is not None:
        on_the_way = f"the jump host on the way to {endpoint.host}"
        jump = replace(jump, endpoint=replace(jump.endpoint, note=on_the_way))
        if not endpoint.note:
            endpoint = replace(endpoint, note=f"through {jump.endpoint.host}")
    if isinstance(jump, Login):
        through = await log_in(jump)
    client = _Client(through)
    try:
        await _check_known_hosts(endpoint)
        options = await _options(login, endpoint)
        if through is not None:
            options["tunnel"] = through
        elif isinstance(jump, HeldSocket):
            options["proxy_command"] = await _proxy_command(jump, endpoint)
        return await asyncssh.connect(
            endpoint.host,
            endpoint.port,
            known_hosts=_trusted(endpoint),
            connect_timeout=login.timeout_s,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_COUNT,
            client_factory=lambda: client,
            **options,
        )
    except Exception as error:
        said = client.banner or await _said_before_greeting(error, endpoint, through, client)
        raise login_error(error, endpoint, said) from error
    finally:
        client.settled()


class _Client(asyncssh.SSHClient):
    """Keeps the host's words, and closes the way there with the connection."""

    def __init__(self, through: asyncssh.SSHClientConnection | None) -> None:
        self._through = through
        self._connection: asyncssh.SSHClientConnection | None = None
        self._lost = False
        self._settled = False
        self.banner = ""
        self.greeted = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.banner += msg

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self.greeted = self._connection.get_extra_info("server_version") is not None
        self._lost = True
        if self._settled:
            self._hang_up()

    def settled(self) -> None:
        """The attempt is over: from now on the way there ends with the connection."""
        self._settled = True
        if self._lost or self._connection is None:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._through is not None:
            self._through.close()


def _trusted(endpoint: Endpoint) -> str | bytes:
    trusted = endpoint.known_hosts
    # None would tell asyncssh to trust every host.
    return trusted if isinstance(trusted, bytes) else str(trusted) if trusted else b""


async def _check_known_hosts(endpoint: Endpoint) -> None:
    trusted = endpoint.known_hosts
    if isinstance(trusted, Path) and not await asyncio.to_thread(trusted.exists):
        raise LoginError(
            LoginFailure.NO_HOST_KEY,
            f"No host key is given for {endpoint}: {trusted} does not exist; put the host's public "
            "key there, or into the connection's host_key.",
        )


async def _options(login: Login, endpoint: Endpoint) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if not login.user_config:
        options["config"] = None
    if endpoint.username:
        options["username"] = endpoint.username
    if login.password is not None:
        options["password"] = login.password
    if login.ciphers:
        options["encryption_algs"] = list(login.ciphers)
    named = _named_keys(login)
    agent = await _agent_path(login, endpoint, bool(named))
    if agent is None or agent:
        options["agent_path"] = agent
    if named:
        options["client_keys"] = named
        if login.passphrase:
            options["passphrase"] = login.passphrase
    elif login.agent:
        # An empty tuple would add the default keys to those of the agent that was asked for.
        options["client_keys"] = []
    elif not login.default_keys:
        options["client_keys"] = None
    return options


def _named_keys(login: Login) -> list[Any]:
    if login.private_key:
        return [asyncssh.import_private_key(login.private_key, login.passphrase or None)]
    return [str(login.key_file)] if login.key_file else []


async def _agent_path(login: Login, endpoint: Endpoint, has_key: bool) -> str | None:
    """Return asyncssh's ``agent_path``: a path, None for no agent, "" for its own default."""
    if login.agent is None and not has_key:
        return ""
    if not login.agent:
        return None
    path = os.environ.get("SSH_AUTH_SOCK", "") if login.agent is True else str(login.agent)
    failure = LoginFailure.NO_AGENT
    if not path:
        raise LoginError(failure, sentence(failure, endpoint, "SSH_AUTH_SOCK is not set"))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S), await asyncssh.connect_agent(path) as agent:
            keys = await agent.get_keys()
    except (OSError, ValueError, asyncssh.Error) as error:
        raise LoginError(failure, sentence(failure, endpoint, f"{path}: {words(error)}")) from error
    if not keys:
        raise LoginError(LoginFailure.AGENT_EMPTY, sentence(LoginFailure.AGENT_EMPTY, endpoint))
    return path


async def _proxy_command(jump: HeldSocket, endpoint: Endpoint) -> list[str]:
    await jump.check()
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return jump.arguments("-W", f"{host}:{endpoint.port}", "--", jump.destination)


async def _said_before_greeting(
    error: Exception,
    endpoint: Endpoint,
    through: asyncssh.SSHClientConnection | None,
    client: _Client,
) -> str:
    """Ask a host that hung up before its SSH greeting for the words that it says instead.

    Neither asyncssh nor any other client keeps them; sshd says "Exceeded MaxStartups" there, and
    some sites say that the system is down.
    """
    lost = isinstance(error, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError)
    if not lost or client.greeted:
        return ""
    with contextlib.suppress(OSError, asyncssh.Error):
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            open_connection: Any = (through or asyncio).open_connection
            reader, writer = await open_connection(endpoint.host, endpoint.port)
            try:
                writer.write(b"SSH-2.0-nightshard\r\n")
                answer: bytes = await reader.read(1024)
            finally:
                writer.close()
            text = answer.decode(errors="replace")
            return "" if text.startswith("SSH-") else _printable(text)
    return ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).strip()
