"""What the extras of an Airflow SSH connection say, as the values that ``clusters`` logs in with.

They are the extras of the provider's ``SSHHookAsync``, with its rules; three of its ``SSHHook``:
``conn_timeout``, ``ciphers``, ``look_for_keys``; and ``jump``, ``agent``, ``control_path``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightshard.core.errors import UserError

if TYPE_CHECKING:
    from nightshard.clusters.held_socket import HeldSocket
    from nightshard.clusters.login import Login
    from nightshard.clusters.login_errors import Endpoint

DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts"
SSH_PORT = 22

_CHECKS_OFF = {
    "no_host_key_check": "true",
    "ignore_hostkey_verification": "true",
    "known_hosts": "none",
}
"""Extras of ``SSHHookAsync`` with the value that makes it accept every host key."""


@dataclass(frozen=True, slots=True)
class ConnectionValues:
    """What is read of an Airflow connection.

    Attributes:
        connection_id: its name.
        host: host name or address.
        port: TCP port; None for the usual one.
        login: remote user.
        password: for sites that take one.
        extra: its extras.
    """

    connection_id: str
    host: str | None
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def check_host_key_is_checked(connection_id: str, extra: Mapping[str, Any]) -> None:
    """Refuse each of the ways in which the SSH hook can be told to trust any host.

    Raises:
        UserError: the connection's extras hold one of them.
    """
    for name, off in _CHECKS_OFF.items():
        if str(extra.get(name, "")).lower() == off:
            raise UserError(
                f"The connection {connection_id!r} switches host key checks off; remove {name} "
                "from its extras and give its host_key."
            )


def way_in(
    values: ConnectionValues, jump: "Login | HeldSocket | None" = None
) -> "Login | HeldSocket":
    """Return how to log in by a connection.

    Args:
        values: the connection.
        jump: what its ``jump`` leads to.

    Raises:
        UserError: an extra cannot be used, or switches host key checks off.
    """
    from nightshard.clusters.held_socket import HeldSocket
    from nightshard.clusters.login import CONNECT_TIMEOUT_S, Login

    name, extra = values.connection_id, values.extra
    if not values.host:
        raise UserError(f"The connection {name!r} has no host; add the login node's name.")
    check_host_key_is_checked(name, extra)
    endpoint = _endpoint(values)
    if extra.get("control_path"):
        if extra.get("jump"):
            raise UserError(
                f"The connection {name!r} has both control_path and jump; remove jump, since the "
                "held login leads to the host by itself."
            )
        return HeldSocket(Path(str(extra["control_path"])).expanduser(), endpoint)
    key_file, private_key = extra.get("key_file"), extra.get("private_key")
    return Login(
        endpoint,
        key_file=Path(str(key_file)) if key_file and not private_key else None,
        private_key=private_key or None,
        passphrase=extra.get("passphrase") or extra.get("private_key_passphrase") or None,
        password=values.password,
        agent=_agent(extra.get("agent")),
        jump=jump,
        default_keys=str(extra.get("look_for_keys", True)).lower() != "false",
        user_config=True,
        ciphers=tuple(extra.get("ciphers") or ()),
        timeout_s=_timeout(name, extra.get("conn_timeout"), CONNECT_TIMEOUT_S),
    )


def _endpoint(values: ConnectionValues) -> "Endpoint":
    from nightshard.clusters.login_errors import Endpoint

    host, port = values.host or "", values.port or SSH_PORT
    trusted: Path | bytes
    if values.extra.get("host_key"):
        # OpenSSH's form: the port belongs to the name unless it is the usual one.
        name = host if port == SSH_PORT else f"[{host}]:{port}"
        key = _host_key(values.connection_id, str(values.extra["host_key"]))
        trusted = f"{name} {key}\n".encode()
    else:
        trusted = Path(str(values.extra.get("known_hosts") or DEFAULT_KNOWN_HOSTS)).expanduser()
    return Endpoint(host, port, values.login or None, trusted)


def _host_key(connection_id: str, text: str) -> str:
    import asyncssh

    words = text.split()
    # A bare key is RSA, as it is for the provider's hooks.
    key = " ".join(words[:2]) if len(words) > 1 else f"ssh-rsa {text.strip()}"
    try:
        asyncssh.import_public_key(key)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise UserError(
            f"The host_key of the connection {connection_id!r} cannot be read; give it as in "
            "known_hosts, without the host's name: ssh-ed25519 AAAA..."
        ) from error
    return key


def _agent(value: Any) -> bool | Path | None:
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip()
    words = {"true": True, "false": False, "": None}
    return words[text.lower()] if text.lower() in words else Path(text).expanduser()


def _timeout(connection_id: str, value: Any, default: float) -> float:
    if value in (None, ""):
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise UserError(
            f"The conn_timeout {value!r} of the connection {connection_id!r} is no number of "
            "seconds; give for example 20."
        )
    return seconds
