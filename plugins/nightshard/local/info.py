"""What a caller may know of a running local cluster."""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "cluster.json"


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A running cluster, saved as ``<root>/cluster.json``.

    Attributes:
        root: the cluster's own folder.
        shared: its "shared file system", seen by the login node and by every job.
        ssh_host: name or address under which clients reach sshd.
        ssh_port: TCP port of sshd.
        ssh_user: the only user who may log in.
        ssh_key: private key file of that user.
        known_hosts: file with sshd's host key under ``ssh_host`` and ``ssh_port``.
        host_key: that host key on one line, ``ssh-ed25519 AAAA…``.
        slurm_conf: value for SLURM_CONF.
        bin_dirs: folders that hold ``sbatch`` and the like.
        accounting: ``sacct`` works.
        nodes: names of the nodes.
        pids: daemon -> process id, of those that live.
        missing: daemons that should live and do not; ``up`` repairs them.
    """

    root: Path
    shared: Path
    ssh_host: str
    ssh_port: int
    ssh_user: str
    ssh_key: Path
    known_hosts: Path
    host_key: str
    slurm_conf: Path
    bin_dirs: tuple[Path, ...]
    accounting: bool
    nodes: tuple[str, ...]
    pids: Mapping[str, int]
    missing: tuple[str, ...] = ()

    def airflow_connection(self) -> dict[str, Any]:
        """Return the JSON of an Airflow connection of type ssh; it names the key, and holds none.

        The host key is given and checked.
        """
        return {
            "conn_type": "ssh",
            "host": self.ssh_host,
            "port": self.ssh_port,
            "login": self.ssh_user,
            "extra": {
                "key_file": str(self.ssh_key),
                "host_key": self.host_key,
                "no_host_key_check": False,
            },
        }

    def environment(self) -> dict[str, str]:
        """Return the variables with which ``squeue`` and the like can be run by hand here."""
        folders = [str(folder) for folder in self.bin_dirs]
        return {
            "PATH": ":".join([*folders, os.environ.get("PATH", os.defpath)]),
            "SLURM_CONF": str(self.slurm_conf),
        }

    def to_json(self) -> str:
        """Render the content of ``cluster.json``."""
        return json.dumps(dataclasses.asdict(self), default=str, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ClusterInfo":
        """Read :meth:`to_json`'s form.

        Raises:
            ValueError: not such a text.
        """
        try:
            value = json.loads(text)
            paths = ("root", "shared", "ssh_key", "known_hosts", "slurm_conf")
            return cls(
                **{
                    **value,
                    **{key: Path(value[key]) for key in paths},
                    "bin_dirs": tuple(Path(folder) for folder in value["bin_dirs"]),
                    "nodes": tuple(value["nodes"]),
                    "missing": tuple(value["missing"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a {FILE_NAME}: {error}") from error


def main(arguments: Sequence[str]) -> int:
    """Print the Airflow connection of the cluster in the folder that is named: one JSON line."""
    (root,) = arguments
    info = ClusterInfo.from_json((Path(root) / FILE_NAME).read_text())
    print(json.dumps(info.airflow_connection()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
