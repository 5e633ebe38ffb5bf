"""From a profile's Airflow connection to the transport that ``clusters`` works with."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightshard.core.errors import UserError

if TYPE_CHECKING:
    import asyncssh
    from airflow.sdk import Connection

    from nightshard.clusters.login import Endpoint
    from nightshard.clusters.profile import ClusterProfile
    from nightshard.clusters.ssh import SshTransport

_CHECKS_OFF = {
    "no_host_key_check": "true",
    "ignore_hostkey_verification": "true",
    "known_hosts": "none",
}
"""Extras of ``SSHHookAsync`` with the value that makes it accept every host key."""


def open_transport(profile: "ClusterProfile") -> "SshTransport":
    """Return a transport on the profile's SSH connection; it connects at its first use.

    Raises (at first use):
        UserError: there is no such connection, it switches host key checks off, or the login
            fails; one sentence says which.
    """
    from nightshard.clusters.ssh import SshTransport

    # asyncssh tells of every channel; in a shard's log that would bury the story.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)

    async def connect() -> "asyncssh.SSHClientConnection":
        return await _connect(profile)

    return SshTransport(connect)


async def _connect(profile: "ClusterProfile") -> "asyncssh.SSHClientConnection":
    from airflow.providers.common.compat.connection import get_async_connection
    from airflow.providers.ssh.hooks.ssh import SSHHookAsync
    from airflow.sdk.exceptions import AirflowNotFoundException

    from nightshard.clusters.login import login_error

    try:
        connection = await get_async_connection(profile.ssh_conn_id)
    except AirflowNotFoundException:
        raise UserError(
            f"Airflow has no connection {profile.ssh_conn_id!r}, which cluster {profile.name!r} "
            "needs; add an SSH connection of that name with its host_key."
        ) from None
    check_host_key_is_checked(profile.ssh_conn_id, connection.extra_dejson)
    hook: Any = SSHHookAsync(ssh_conn_id=profile.ssh_conn_id)
    try:
        opened: asyncssh.SSHClientConnection = await hook.get_conn()
    except Exception as error:
        raise login_error(error, _endpoint(connection)) from error
    return opened


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


def _endpoint(connection: "Connection") -> "Endpoint":
    """Say what a failed login was about, with the host keys that were trusted."""
    from nightshard.clusters.login import Endpoint

    host, port, extra = connection.host or "", connection.port or 22, connection.extra_dejson
    trusted: Path | bytes | None = None
    if "host_key" in extra:
        # OpenSSH's form: the port belongs to the name unless it is the usual one.
        name = host if port == 22 else f"[{host}]:{port}"  # noqa: PLR2004 (the SSH port)
        trusted = f"{name} {extra['host_key']}".encode()
    elif "known_hosts" in extra:
        trusted = Path(extra["known_hosts"])
    return Endpoint(host, port, connection.login, trusted)
