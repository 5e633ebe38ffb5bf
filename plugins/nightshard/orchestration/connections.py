"""From a profile's Airflow connection to the transport that ``clusters`` works with."""

from typing import TYPE_CHECKING

from nightshard.core.errors import UserError

if TYPE_CHECKING:
    import asyncssh

    from nightshard.clusters.profile import ClusterProfile
    from nightshard.clusters.ssh import SshTransport


def open_transport(profile: "ClusterProfile") -> "SshTransport":
    """Return a transport on the profile's SSH connection; it connects at its first use.

    Raises (at first use):
        UserError: there is no such connection, or it switches host key checks off.
    """
    from nightshard.clusters.ssh import SshTransport

    async def connect() -> "asyncssh.SSHClientConnection":
        return await _connect(profile)

    return SshTransport(connect)


async def _connect(profile: "ClusterProfile") -> "asyncssh.SSHClientConnection":
    from airflow.providers.common.compat.connection import get_async_connection
    from airflow.providers.ssh.hooks.ssh import SSHHookAsync
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = await get_async_connection(profile.ssh_conn_id)
    except AirflowNotFoundException:
        raise UserError(
            f"Airflow has no connection {profile.ssh_conn_id!r}, which cluster {profile.name!r} "
            "needs; add an SSH connection of that name with its host_key."
        ) from None
    if str(connection.extra_dejson.get("no_host_key_check", "")).lower() == "true":
        raise UserError(
            f"The connection {profile.ssh_conn_id!r} switches host key checks off; remove "
            "no_host_key_check from its extras and give its host_key."
        )
    return await SSHHookAsync(ssh_conn_id=profile.ssh_conn_id).get_conn()
