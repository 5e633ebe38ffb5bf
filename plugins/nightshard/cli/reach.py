"""Reaching a cluster from the command line, without a running Airflow."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.transport import Transport
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings

if TYPE_CHECKING:
    from nightshard.clusters.login_errors import Endpoint

_ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[A-Za-z0-9._-]+)(?::(?P<port>\d+))?")

ssh_option = click.option(
    "--ssh",
    metavar="[USER@]HOST[:PORT]",
    help="How to log in; ~/.ssh/config, the agent and known_hosts are used. Default: the "
    "variable AIRFLOW_CONN_… of the profile's connection, or the local cluster.",
)


def endpoint_of(address: str) -> "Endpoint":
    """Return where the user's own ``ssh`` would go; its known hosts are the trusted ones.

    Raises:
        UserError: the address has another form than ``[USER@]HOST[:PORT]``.
    """
    from nightshard.clusters.login_errors import Endpoint

    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UserError(f"{address!r} is no login node; give [USER@]HOST[:PORT].")
    usual = _as_ssh_would(found["host"])
    return Endpoint(
        usual.get("hostname", found["host"]),
        int(found["port"] or usual.get("port", 22)),
        found["user"] or usual.get("user"),
        Path("~/.ssh/known_hosts").expanduser(),
    )


def transport_by_ssh(endpoint: "Endpoint") -> Transport:
    """Return a transport to a login node as the user's own ``ssh`` would reach it."""
    from nightshard.clusters.login import Login, log_in
    from nightshard.clusters.ssh import SshTransport

    login = Login(endpoint, user_config=True)
    return SshTransport(lambda: log_in(login), endpoint)


def _as_ssh_would(host: str) -> dict[str, str]:
    """Return what ``~/.ssh/config`` makes of a host's name, as ``ssh -G`` tells it."""
    program = shutil.which("ssh")
    if program is None:
        return {}
    own = Path("~/.ssh/config").expanduser()
    # By itself ssh takes the home folder from the user database, whatever HOME says.
    config = ["-F", str(own)] if own.exists() else []
    command = [program, *config, "-G", host]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    pairs = (line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    return {key: value for key, value in pairs if key in {"hostname", "port", "user"}}


def transport_to(profile: ClusterProfile, ssh: str | None, settings: Settings) -> Transport:
    """Return a transport to a profile's login node.

    Raises:
        UserError: nothing says how to get there.
    """
    if ssh is not None:
        return transport_by_ssh(endpoint_of(ssh))
    variable = f"AIRFLOW_CONN_{profile.ssh_conn_id.upper()}"
    if variable not in os.environ:
        local = _local_connection(profile, settings)
        if local is None:
            raise UserError(
                f"Nothing says here how to log in to {profile.name!r}; give --ssh USER@HOST, or "
                f"set {variable} to Airflow's connection."
            )
        os.environ[variable] = local
    from nightshard.orchestration.connections import open_transport

    return open_transport(profile)


def _local_connection(profile: ClusterProfile, settings: Settings) -> str | None:
    from nightshard.local.cluster import LocalCluster
    from nightshard.local.stack import cluster_root

    if profile.ssh_conn_id != "nightshard_local":
        return None
    info = LocalCluster(cluster_root(settings)).status()
    return json.dumps(info.airflow_connection()) if info else None
