"""One clear sentence for each way in which a login fails."""

import contextlib
import errno
import socket
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from nightshard.clusters.errors import LoginError, LoginFailure, TransportError
from nightshard.core.errors import NightshardError

SITE_WORDS_LIMIT = 300
"""Characters of a site's own words that are shown; a legal notice can fill pages."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a sentence about a failed login can name.

    Attributes:
        host: host name or address.
        port: TCP port.
        username: remote user.
        known_hosts: file with trusted host keys, or its content.
        note: its place on the way, where there are several hops.
    """

    host: str
    port: int = 22
    username: str | None = None
    known_hosts: Path | bytes | None = None
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.host} port {self.port}{note}"

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


def login_error(error: Exception, endpoint: Endpoint | None, site_words: str = "") -> Exception:
    """Turn what a connect raised into a :class:`LoginError`, else a :class:`TransportError`.

    Errors that are Nightshard's own already, or no error of a connection, are returned as they are.

    Args:
        error: what was raised.
        endpoint: the host that it was raised for.
        site_words: what the host said in plain words before it hung up or denied the login.
    """
    if isinstance(error, NightshardError):
        return error
    failure = _failure(error, endpoint)
    if failure is LoginFailure.DROPPED and site_words:
        failure = LoginFailure.SITE_MESSAGE
    if failure is not None:
        return LoginError(failure, sentence(failure, endpoint, words(error), site_words))
    if isinstance(error, OSError | asyncssh.Error):
        where = str(endpoint) if endpoint else "the cluster"
        return TransportError(f"No connection to {where}: {words(error)}.")
    return error


def sentence(
    failure: LoginFailure, endpoint: Endpoint | None, detail: str = "", site_words: str = ""
) -> str:
    """Return the sentence for the user.

    Args:
        failure: what went wrong.
        endpoint: with which host.
        detail: the program's own words; shown where they help.
        site_words: the site's own words; shown where there are any.
    """
    where = str(endpoint) if endpoint else "the cluster's login node"
    user = f" as {endpoint.username}" if endpoint and endpoint.username else ""
    said = " ".join(site_words.split())
    if len(said) > SITE_WORDS_LIMIT:
        said = said[:SITE_WORDS_LIMIT].rstrip() + " …"
    text = _SENTENCES[failure].format(where=where, user=user, detail=detail, said=said)
    if said and "{said}" not in _SENTENCES[failure]:
        text = text.removesuffix(".") + f" (it said: {said})."
    return text


def words(error: BaseException) -> str:
    """Return an error's text on one line without a full stop, or its class where it has none."""
    text = ""
    with contextlib.suppress(Exception):
        text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__


def _failure(error: Exception, endpoint: Endpoint | None) -> LoginFailure | None:
    if isinstance(error, asyncssh.KeyEncryptionError):
        return LoginFailure.KEY_NOT_OPENED
    if isinstance(error, asyncssh.KeyImportError):
        return _failure_of_key(error)
    if isinstance(error, asyncssh.ChannelOpenError):
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            return LoginFailure.FORWARDING_FORBIDDEN
        return LoginFailure.JUMP_CANNOT_REACH
    if isinstance(error, asyncssh.DisconnectError):
        return _failure_of_disconnect(error, endpoint)
    return _failure_of_os_error(error) if isinstance(error, OSError) else None


def _failure_of_disconnect(
    error: asyncssh.DisconnectError, endpoint: Endpoint | None
) -> LoginFailure | None:
    reason = error.reason.lower()
    # OpenSSH names this one by its text only; the code is that of any protocol error.
    if "too many authentication failures" in reason:
        return LoginFailure.TOO_MANY_KEYS
    if "login timeout" in reason:
        return LoginFailure.TIMED_OUT
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        if endpoint is None:
            return LoginFailure.HOST_KEY_NOT_TRUSTED
        known = endpoint.known()
        return LoginFailure.HOST_KEY_CHANGED if known else LoginFailure.HOST_KEY_UNKNOWN
    return _first(
        error,
        [
            (asyncssh.PermissionDenied, LoginFailure.PERMISSION_DENIED),
            (asyncssh.ProtocolError, LoginFailure.NOT_SSH),
            (asyncssh.ProtocolNotSupported, LoginFailure.NOT_SSH),
            (asyncssh.ConnectionLost, LoginFailure.DROPPED),
        ],
    )


def _first(
    error: Exception, kinds: list[tuple[type[Exception], LoginFailure]]
) -> LoginFailure | None:
    return next((failure for kind, failure in kinds if isinstance(error, kind)), None)


def _failure_of_key(error: Exception) -> LoginFailure:
    text = str(error).lower()
    if "passphrase must be specified" in text:
        return LoginFailure.KEY_ENCRYPTED
    if "incorrect passphrase" in text or "unable to decrypt" in text:
        return LoginFailure.KEY_NOT_OPENED
    return LoginFailure.UNUSABLE_KEY


def _failure_of_os_error(error: OSError) -> LoginFailure | None:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return LoginFailure.UNUSABLE_KEY if error.filename else None
    known = _first(
        error,
        [
            (socket.gaierror, LoginFailure.NAME_NOT_RESOLVED),
            (ConnectionRefusedError, LoginFailure.REFUSED),
            (TimeoutError, LoginFailure.TIMED_OUT),
            (ConnectionResetError, LoginFailure.DROPPED),
            (BrokenPipeError, LoginFailure.DROPPED),
        ],
    )
    if known is not None:
        return known
    # asyncio joins the errors of several addresses of one host into one, without a number.
    if "refused" in str(error).lower():
        return LoginFailure.REFUSED
    unreachable = error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}
    return LoginFailure.TIMED_OUT if unreachable else None


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
    LoginFailure.DROPPED: (
        "{where} hung up before the login began, as sshd does at too many logins at a time "
        "(MaxStartups) or for a blocked address; wait, then ask the site if it stays so."
    ),
    LoginFailure.SITE_MESSAGE: (
        "{where} hung up and said: {said}; wait if that is the site's word on a maintenance or on "
        "too many logins, else check host and port."
    ),
    LoginFailure.NOT_SSH: (
        "What answers at {where} does not speak SSH as expected ({detail}); check host and port."
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
        "The login{user} to {where} was denied; check the user name and the key, or hold a login "
        "open where the site asks for a second factor (docs/connections.md)."
    ),
    LoginFailure.TOO_MANY_KEYS: (
        "{where} ended the login{user} after too many keys that it does not know; name the right "
        "one as key_file, or keep fewer keys in the agent."
    ),
    LoginFailure.UNUSABLE_KEY: (
        "The private key for {where} cannot be used; check key_file and its passphrase."
    ),
    LoginFailure.KEY_ENCRYPTED: (
        "The private key for {where} has a passphrase; give it as private_key_passphrase, or load "
        "the key into an ssh-agent and set agent in the connection's extras."
    ),
    LoginFailure.KEY_NOT_OPENED: (
        "The passphrase does not open the private key for {where}; correct private_key_passphrase."
    ),
    LoginFailure.NO_AGENT: (
        "No ssh-agent answers for the login to {where} ({detail}); start one where Airflow runs "
        "and name its socket as agent in the connection's extras."
    ),
    LoginFailure.AGENT_EMPTY: (
        "The ssh-agent for the login to {where} holds no key; add one with: ssh-add."
    ),
    LoginFailure.SOCKET_GONE: ("The held login to {where} is gone; log in again with: {detail}"),
    LoginFailure.NO_SSH_PROGRAM: (
        "The program ssh is missing where Airflow runs, and the held login to {where} needs it; "
        "install the OpenSSH client."
    ),
    LoginFailure.JUMP_CANNOT_REACH: (
        "The jump host cannot reach {where}: {detail}; check host and port of the connection."
    ),
    LoginFailure.FORWARDING_FORBIDDEN: (
        "The jump host lets nobody go on to {where}; ask the site whether it allows TCP "
        "forwarding (AllowTcpForwarding, PermitOpen)."
    ),
    LoginFailure.MAINTENANCE: (
        "The login node {where} takes the login and runs no command: {said}; wait until the site "
        "opens it again."
    ),
}
