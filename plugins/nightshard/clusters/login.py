"""Connecting by asyncssh, and one clear sentence for each way in which a login fails."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from nightshard.clusters.errors import LoginError, LoginFailure, TransportError
from nightshard.core.errors import NightshardError

Connect = Callable[[], Awaitable[asyncssh.SSHClientConnection]]

CONNECT_TIMEOUT_S = 20.0
KEEPALIVE_S = 30


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a sentence about a failed login can name.

    Attributes:
        host: host name or address.
        port: TCP port.
        username: remote user.
        known_hosts: file with trusted host keys, or its content.
    """

    host: str
    port: int = 22
    username: str | None = None
    known_hosts: Path | bytes | None = None

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"

    def known(self) -> bool:
        """Whether a key of this host is among the trusted ones."""
        if self.known_hosts is None:
            return False
        source = self.known_hosts if isinstance(self.known_hosts, bytes) else str(self.known_hosts)
        try:
            keys, authorities, *_ = asyncssh.match_known_hosts(source, self.host, "", self.port)
        except (OSError, ValueError):
            return False
        return bool(keys or authorities)


def connector(
    host: str,
    port: int,
    username: str,
    key_file: Path,
    known_hosts: Path,
) -> Connect:
    """Return what opens a connection with a key and strict host key checking.

    Args:
        host: host name or address.
        port: TCP port.
        username: remote user.
        key_file: private key.
        known_hosts: trusted host keys in OpenSSH's format.
    """
    endpoint = Endpoint(host, port, username, known_hosts)

    async def connect() -> asyncssh.SSHClientConnection:
        if not await asyncio.to_thread(known_hosts.exists):
            raise LoginError(
                LoginFailure.NO_HOST_KEY,
                f"No host key is given for {endpoint}: {known_hosts} does not exist; put the "
                "host's public key there.",
            )
        try:
            return await asyncssh.connect(
                host,
                port,
                username=username,
                client_keys=[str(key_file)],
                known_hosts=str(known_hosts),
                config=None,
                agent_path=None,
                connect_timeout=CONNECT_TIMEOUT_S,
                keepalive_interval=KEEPALIVE_S,
            )
        except Exception as error:
            raise login_error(error, endpoint) from error

    return connect


def login_error(error: Exception, endpoint: Endpoint | None) -> Exception:
    """Turn what a connect raised into a :class:`LoginError`, else a :class:`TransportError`.

    Errors that are Nightshard's own already, or no error of a connection, are returned as they are.
    """
    if isinstance(error, NightshardError):
        return error
    failure = _failure(error, endpoint)
    if failure is not None:
        return LoginError(failure, _sentence(failure, endpoint))
    if isinstance(error, OSError | asyncssh.Error):
        where = str(endpoint) if endpoint else "the cluster"
        return TransportError(f"No connection to {where}: {_words(error)}.")
    return error


def _failure(error: Exception, endpoint: Endpoint | None) -> LoginFailure | None:
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        if endpoint is None:
            return LoginFailure.HOST_KEY_NOT_TRUSTED
        if endpoint.known():
            return LoginFailure.HOST_KEY_CHANGED
        return LoginFailure.HOST_KEY_UNKNOWN
    kinds: list[tuple[type[Exception], LoginFailure]] = [
        (socket.gaierror, LoginFailure.NAME_NOT_RESOLVED),
        (ConnectionRefusedError, LoginFailure.REFUSED),
        (TimeoutError, LoginFailure.TIMED_OUT),
        (asyncssh.PermissionDenied, LoginFailure.PERMISSION_DENIED),
        (asyncssh.KeyImportError, LoginFailure.UNUSABLE_KEY),
        (asyncssh.KeyEncryptionError, LoginFailure.UNUSABLE_KEY),
    ]
    for kind, failure in kinds:
        if isinstance(error, kind):
            return failure
    if isinstance(error, OSError):
        return _failure_of_os_error(error)
    return None


def _failure_of_os_error(error: OSError) -> LoginFailure | None:
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename:
        return LoginFailure.UNUSABLE_KEY
    # asyncio joins the errors of several addresses of one host into one, without a number.
    if error.errno == errno.ECONNREFUSED or "refused" in str(error).lower():
        return LoginFailure.REFUSED
    if error.errno in {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return LoginFailure.TIMED_OUT
    return None


_SENTENCES = {
    LoginFailure.NAME_NOT_RESOLVED: (
        "The host name of {where} could not be resolved; check host in the connection."
    ),
    LoginFailure.REFUSED: (
        "Connections to {where} are refused; check the port and that sshd runs there."
    ),
    LoginFailure.TIMED_OUT: (
        "No answer came from {where}; check the network, a VPN or a firewall."
    ),
    LoginFailure.HOST_KEY_UNKNOWN: (
        "The host key of {where} is unknown; verify it with the site and add it to the "
        "connection's host_key or to known_hosts."
    ),
    LoginFailure.HOST_KEY_CHANGED: (
        "The host key of {where} HAS CHANGED and the login was stopped; ask the site whether that "
        "is right before you replace the stored key."
    ),
    LoginFailure.HOST_KEY_NOT_TRUSTED: (
        "The host key of {where} is not the trusted one, so the login was stopped; verify it with "
        "the site and correct the connection's host_key."
    ),
    LoginFailure.NO_HOST_KEY: ("No host key is given for {where}; add host_key to the connection."),
    LoginFailure.PERMISSION_DENIED: (
        "The login{user} to {where} was denied; check the user name and the key."
    ),
    LoginFailure.UNUSABLE_KEY: (
        "The private key for {where} cannot be used; check key_file and its passphrase."
    ),
}


def _sentence(failure: LoginFailure, endpoint: Endpoint | None) -> str:
    where = str(endpoint) if endpoint else "the cluster's login node"
    user = f" as {endpoint.username}" if endpoint and endpoint.username else ""
    return _SENTENCES[failure].format(where=where, user=user)


def _words(error: BaseException) -> str:
    text = ""
    with contextlib.suppress(Exception):
        text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__
