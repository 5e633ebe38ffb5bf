"""A cluster's folder: its parts, its keys, its ports, and a short name for Unix sockets."""

import json
import os
import pwd
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from nightshard.core.errors import UserError
from nightshard.local.processes import Process, free_ports, port_is_free
from nightshard.local.slurm_config import Ports

LONGEST_BASE = 60
"""Longest usable path, in bytes.

A Unix socket's path has 107 bytes, and Slurm's step socket needs 45 below the base:
``/spool/node1/node1_4294967295.4294967291``.
"""

PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+@-]+")
"""Paths that Slurm's and sshd's files take without quoting."""

SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes a private folder there


def current_user() -> pwd.struct_passwd:
    """Return the user list's entry of this process.

    Raises:
        UserError: the user id has no name, as in some containers.
    """
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise UserError(
            f"User id {os.geteuid()} has no name on this machine, and Slurm and sshd need one; "
            "add the user to /etc/passwd."
        ) from None


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step, never readable by others in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
    temporary.rename(path)


class Layout:
    """The folder of one cluster.

    Args:
        root: absolute folder, made when first needed, private to the user.

    Raises:
        UserError: the path cannot be written into configuration files.
    """

    def __init__(self, root: Path) -> None:
        if re.search(r"[\"\\\x00-\x1f]", str(root)):
            raise UserError(
                f"The cluster's folder {str(root)!r} has a quote, a backslash or a control "
                "character in its name; choose another folder."
            )
        self.root = root
        self.ssh_key = root / "ssh" / "id_ed25519"
        self.known_hosts = root / "ssh" / "known_hosts"
        self.shared = root / "shared"

    def make(self) -> None:
        """Create the folders."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for name in ("etc", "run", "log", "state", "spool", "shared", "ssh"):
            (self.root / name).mkdir(exist_ok=True)
            # munged refuses folders that others may write to, and umasks differ.
            (self.root / name).chmod(0o755)

    def base(self) -> Path:
        """Return the root itself, or a link to it in a private folder where it is too long."""
        if len(os.fsencode(self.root)) <= LONGEST_BASE and PLAIN_PATH.fullmatch(str(self.root)):
            return self.root
        if (known := self._alias()) is not None:
            return known
        place = next(p for p in SHORT_PLACES if os.access(p, os.W_OK))
        link = Path(tempfile.mkdtemp(prefix="nightshard-", dir=place)) / "c"
        link.symlink_to(self.root)
        write_private(self.root / "alias", str(link))
        return link

    def _alias(self) -> Path | None:
        """Return the recorded link if it is still there and nobody else's."""
        try:
            link = Path((self.root / "alias").read_text())
            owner = link.parent.stat()
            private = owner.st_uid == os.geteuid() and owner.st_mode & 0o077 == 0
            return link if private and link.readlink() == self.root else None
        except OSError:
            return None

    def drop_alias(self) -> None:
        """Remove the link that :meth:`base` made, if any."""
        link = self._alias()
        if link is not None:
            shutil.rmtree(link.parent)
            (self.root / "alias").unlink()

    def secret(self, name: str) -> str:
        """Return a random word that is kept in ``etc/``, 64 hex digits."""
        path = self.root / "etc" / name
        if not path.exists():
            write_private(path, secrets.token_hex(32), 0o400)
        return path.read_text()

    def make_keys(self, host: str, port: int) -> str:
        """Create what is missing of munge's key, sshd's and the user's, and ``known_hosts``.

        Returns:
            The host key on one line, without a comment.
        """
        import asyncssh  # noqa: PLC0415 - heavy, and needed only here

        self.secret("munge.key")
        folder = self.root / "ssh"
        for path in (folder / "host_ed25519", self.ssh_key):
            if not path.exists():
                key = asyncssh.generate_private_key("ssh-ed25519")
                write_private(path, key.export_private_key().decode())
        public = {
            path: asyncssh.read_private_key(str(path)).export_public_key().decode().strip()
            for path in (folder / "host_ed25519", self.ssh_key)
        }
        host_key = " ".join(public[folder / "host_ed25519"].split()[:2])
        write_private(folder / "authorized_keys", public[self.ssh_key] + "\n")
        write_private(self.known_hosts, f"[{host}]:{port} {host_key}\n", 0o644)
        return host_key

    def processes(self) -> dict[str, Process]:
        """Return the recorded daemons that still live."""
        try:
            record = json.loads((self.root / "processes.json").read_text())
        except (OSError, ValueError):
            return {}
        found = {name: Process(*value) for name, value in record.items()}
        return {name: process for name, process in found.items() if process.alive()}

    def record(self, processes: dict[str, Process]) -> None:
        """Write the daemons down, so that a later call finds them."""
        value = {name: [p.pid, p.started] for name, p in processes.items()}
        write_private(self.root / "processes.json", json.dumps(value))

    def known_ports(self) -> dict[str, int]:
        """Return the recorded ports by daemon; empty before the first ``up``."""
        try:
            known: dict[str, int] = json.loads((self.root / "ports.json").read_text())
        except (OSError, ValueError):
            return {}
        return known

    def ports(self, alive: set[str], node_names: tuple[str, ...], ssh_port: int | None) -> Ports:
        """Return the cluster's ports: the recorded ones unless another program took them.

        Args:
            alive: daemons of this cluster that run, and so hold their ports themselves.
            node_names: names of the nodes, one port each.
            ssh_port: sshd's port where the caller insists on one.

        Raises:
            UserError: another program listens on ``ssh_port``.
        """
        known = self.known_ports()
        names = ["sshd", "slurmctld", "slurmdbd", *node_names]
        usable = {
            name: known[name]
            for name in names
            if name in known and (name in alive or port_is_free(known[name]))
        }
        if ssh_port is not None:
            if usable.get("sshd") != ssh_port and not port_is_free(ssh_port):
                raise UserError(
                    f"Another program listens on port {ssh_port}; stop it, or choose another "
                    "port for the local cluster's sshd."
                )
            usable["sshd"] = ssh_port
        lacking = [name for name in names if name not in usable]
        usable |= zip(lacking, free_ports(len(lacking), usable.values()), strict=True)
        write_private(self.root / "ports.json", json.dumps(usable))
        return Ports(
            ssh=usable["sshd"],
            slurmctld=usable["slurmctld"],
            slurmd=tuple(usable[name] for name in node_names),
            slurmdbd=usable["slurmdbd"],
        )
