"""More sshds beside a local cluster's own, and the programs that a person uses with them."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncssh

from nightshard.clusters.held_socket import HeldSocket
from nightshard.clusters.login import Login, log_in
from nightshard.clusters.login_errors import Endpoint
from nightshard.clusters.ssh import SshTransport
from nightshard.core.settings import Settings
from nightshard.local import processes
from nightshard.local.debian import SYSTEM_PATH, find_programs
from nightshard.local.info import ClusterInfo


@dataclass(frozen=True)
class Sshd:
    """A running sshd with a host key of its own.

    Attributes:
        endpoint: where it is, with its host key as the only trusted one.
        host_key: that key on one line.
        key_file: a private key that it lets in.
        log: what it wrote.
    """

    endpoint: Endpoint
    host_key: str
    key_file: Path
    log: Path

    def at(self, port: int) -> "Sshd":
        """Return the same server as it is reached through a proxy's port."""
        host = self.endpoint.host
        trusted = f"[{host}]:{port} {self.host_key}\n".encode()
        return replace(self, endpoint=replace(self.endpoint, port=port, known_hosts=trusted))


def clusters_own(info: ClusterInfo) -> Sshd:
    """Return the sshd of the local cluster itself."""
    trusted = info.known_hosts.read_bytes()
    endpoint = Endpoint(info.ssh_host, info.ssh_port, info.ssh_user, trusted)
    return Sshd(endpoint, info.host_key, info.ssh_key, info.root / "log" / "sshd.log")


def transport_to(sshd: Sshd) -> SshTransport:
    """Return a transport that logs in with the server's key alone."""
    way = Login(sshd.endpoint, key_file=sshd.key_file, agent=False)
    return SshTransport(lambda: log_in(way), sshd.endpoint)


@contextlib.contextmanager
def running_sshd(info: ClusterInfo, folder: Path, *settings: str) -> Iterator[Sshd]:
    """Start another sshd that lets the same user in with the same key.

    Args:
        info: the local cluster whose program and user it takes.
        folder: for its files.
        settings: lines of ``sshd_config`` that win over the usual ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(folder / "host"))
    (folder / "host").chmod(0o600)
    port = processes.free_port()
    usual = (info.root / "etc" / "sshd_config").read_text().splitlines()
    own = {"Port", "HostKey", "PidFile", *(line.split()[0] for line in settings)}
    lines = [f"Port {port}", f'HostKey "{folder / "host"}"', "PidFile none", "LogLevel VERBOSE"]
    lines += [*settings, *(line for line in usual if line.split()[0] not in own)]
    config = folder / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    programs = find_programs(Settings.from_env(os.environ).state / "debian", accounting=False)
    environment = {"PATH": SYSTEM_PATH, "HOME": str(Path.home()), processes.MARKER: str(info.root)}
    if programs.library_path:
        environment["LD_LIBRARY_PATH"] = programs.library_path
    if programs.nss_wrapper is not None:
        environment["LD_PRELOAD"] = str(programs.nss_wrapper)
        for kind in ("passwd", "group", "shadow"):
            environment[f"NSS_WRAPPER_{kind.upper()}"] = str(info.root / "etc" / kind)
    log = folder / "sshd.log"
    process = processes.start([programs.sshd, "-D", "-e", "-f", config], environment, log)
    try:
        processes.wait_until(lambda: processes.accepts_tcp(port), what="sshd")
        public = key.export_public_key().decode().split()
        host_key = f"{public[0]} {public[1]}"
        trusted = f"[127.0.0.1]:{port} {host_key}\n".encode()
        endpoint = Endpoint("127.0.0.1", port, info.ssh_user, trusted)
        yield Sshd(endpoint, host_key, info.ssh_key, log)
    finally:
        processes.stop([process])


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Lend a folder whose path leaves room for a Unix socket's 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ns-", dir="/tmp") as folder:
        yield Path(folder)


@contextlib.contextmanager
def held_login(sshd: Sshd, folder: Path) -> Iterator[tuple[HeldSocket, subprocess.Popen[bytes]]]:
    """Log in with ``ssh -M`` as a person does, and hold it; the process is the person's ssh."""
    endpoint = sshd.endpoint
    known_hosts = folder / "known_hosts"
    assert isinstance(endpoint.known_hosts, bytes)
    known_hosts.write_bytes(endpoint.known_hosts)
    socket = HeldSocket(folder / "held", endpoint)
    command = ["ssh", "-F", "none", "-M", "-N", "-S", str(socket.path), "-p", str(endpoint.port)]
    command += ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    command += ["-o", "BatchMode=yes", "-i", str(sshd.key_file)]
    command += ["--", f"{endpoint.username}@{endpoint.host}"]
    person = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        processes.wait_until(lambda: processes.accepts_unix(socket.path), what="ssh -M")
        yield socket, person
    finally:
        leave = ["ssh", "-F", "none", "-S", str(socket.path), "-O", "exit", "--", endpoint.host]
        subprocess.run(leave, check=False, capture_output=True)
        try:
            person.wait(10)
        except subprocess.TimeoutExpired:
            person.kill()
            person.wait(10)


@contextlib.contextmanager
def running_agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """Start an ssh-agent that holds these keys."""
    path = folder / "agent"
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        processes.wait_until(lambda: processes.accepts_unix(path), what="ssh-agent")
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", str(key)], env={"SSH_AUTH_SOCK": str(path)}, check=True
            )
        yield path
    finally:
        agent.terminate()
        agent.wait(10)
