"""From a profile's Airflow connection to the transport that ``clusters`` works with."""

import logging
from typing import TYPE_CHECKING

from nightshard.core.errors import UserError
from nightshard.orchestration.connection_extras import (
    ConnectionValues,
    check_host_key_is_checked,
    way_in,
)

if TYPE_CHECKING:
    import asyncssh
    from huggingface_hub import HfApi

    from nightshard.clusters.held_socket import HeldSocket
    from nightshard.clusters.login import Login
    from nightshard.clusters.profile import ClusterProfile
    from nightshard.clusters.transport import Transport
    from nightshard.publish.account import HubAccount

__all__ = [
    "NoConnectionError",
    "check_host_key_is_checked",
    "hub_account",
    "hub_client",
    "is_connected",
    "open_transport",
]

HUB = "nightshard_hub"
"""Airflow's connection to the Hugging Face Hub."""


class NoConnectionError(UserError):
    """Airflow has no connection to a cluster: its profile is there, but nobody uses it yet."""


def open_transport(profile: "ClusterProfile") -> "Transport":
    """Return a transport on the profile's SSH connection; it connects at its first use.

    Raises (at first use):
        UserError: there is no such connection, it switches host key checks off, or the login
            fails; one sentence says which.
    """
    from nightshard.clusters.delegating import ChosenTransport
    from nightshard.clusters.held_socket import HeldSocket
    from nightshard.clusters.login import log_in
    from nightshard.clusters.openssh import OpenSshTransport
    from nightshard.clusters.ssh import SshTransport

    # asyncssh tells of every channel; in a shard's log that would bury the story.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)

    async def choose() -> "Transport":
        way = await _way_to(profile)
        if isinstance(way, HeldSocket):
            return OpenSshTransport(way)
        first: Login | None = way

        async def connect() -> "asyncssh.SSHClientConnection":
            # Read again for each later login, so that a mended connection is used.
            nonlocal first
            login, first = first or await _way_to(profile), None
            if isinstance(login, HeldSocket):
                raise UserError(
                    f"The connection {profile.ssh_conn_id!r} was given a control_path meanwhile; "
                    "run this again."
                )
            return await log_in(login)

        return SshTransport(connect, way.endpoint)

    return ChosenTransport(choose)


async def _way_to(profile: "ClusterProfile") -> "Login | HeldSocket":
    needed_by = f"cluster {profile.name!r}"
    chain = [await _read(profile.ssh_conn_id, needed_by)]
    while onward := str(chain[-1].extra.get("jump") or ""):
        names = [values.connection_id for values in chain]
        if onward in names:
            raise UserError(
                f"The jump hosts of the connection {names[0]!r} go in a circle "
                f"({' -> '.join([*names, onward])}); correct jump in one of them."
            )
        chain.append(await _read(onward, f"the connection {names[-1]!r} as its jump host"))
    way: Login | HeldSocket | None = None
    for values in reversed(chain):
        way = way_in(values, way)
    assert way is not None  # noqa: S101 (the chain has at least one link)
    return way


async def _read(connection_id: str, needed_by: str) -> ConnectionValues:
    from airflow.providers.common.compat.connection import get_async_connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = await get_async_connection(connection_id)
    except AirflowNotFoundException:
        raise NoConnectionError(
            f"Airflow has no connection {connection_id!r}, which {needed_by} needs; add an SSH "
            "connection of that name with its host_key."
        ) from None
    return ConnectionValues(
        connection_id, found.host, found.port, found.login, found.password, found.extra_dejson
    )


def is_connected(connection_id: str) -> bool:
    """Say whether Airflow has a connection of this name. Call it inside a task."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        Connection.get(connection_id)
    except AirflowNotFoundException:
        return False
    return True


def hub_client() -> "HfApi":
    """Return a client of the Hub: that of the connection where there is one, else anonymous."""
    from huggingface_hub import HfApi

    account = hub_account()
    return HfApi(endpoint=account.endpoint, token=account.token) if account else HfApi()


def hub_account() -> "HubAccount | None":
    """Return where runs are published: the connection ``nightshard_hub``, None without one.

    Its login is the user or organisation, its password the token, its host another address than
    the public Hub's. The extra ``{"private": false}`` makes new datasets public.

    Raises:
        UserError: the connection lacks its namespace or its token.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from nightshard.publish.account import HubAccount

    try:
        found = Connection.get(HUB)
    except AirflowNotFoundException:
        return None
    if not found.login or not found.password:
        raise UserError(
            f"The connection {HUB!r} needs the namespace as login and a token as password."
        )
    port = f":{found.port}" if found.port else ""
    scheme = found.schema or "https"
    endpoint = f"{scheme}://{found.host}{port}" if found.host else None
    private = bool(found.extra_dejson.get("private", True))
    return HubAccount(found.login, found.password, endpoint, private)
