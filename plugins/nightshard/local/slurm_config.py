"""Rendering of the cluster's configuration files. Pure: values in, text out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GPU_FILES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random"),
    *("/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/stdin"),
)
"""Stand-ins for GPUs: Slurm wants an existing device file for each GPU it hands out."""

CLUSTER_NAME = "local"
DATABASE = "slurm_acct_db"
DATABASE_USER = "slurm"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a test may want different from the cluster's usual settings.

    Attributes:
        max_array_size: Slurm's ``MaxArraySize``, one more than the highest array index.
        min_job_age: seconds for which ``squeue`` and ``scontrol`` remember a finished job.
        kill_wait: seconds between SIGTERM and SIGKILL of a job past its limit or cancelled.
        slurmd_timeout: seconds after which a node that does not answer is down.
        nodes: number of slurmds.
        cpus: CPUs that each node claims to have.
        memory_mb: memory that each node claims to have, in MiB.
        gpus: pretended GPUs of each node.
        partitions: names of more partitions, each of all nodes.
    """

    max_array_size: int = 1001
    min_job_age: int = 20
    kill_wait: int = 2
    slurmd_timeout: int = 15
    nodes: int = 4
    cpus: int = 8
    memory_mb: int = 8000
    gpus: int = 2
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports of a cluster.

    Attributes:
        ssh: sshd.
        slurmctld: controller.
        slurmd: one a node.
        slurmdbd: accounting daemon; drawn even where there is no accounting.
    """

    ssh: int
    slurmctld: int
    slurmd: tuple[int, ...]
    slurmdbd: int


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """Everything that the Slurm files depend on.

    Attributes:
        base: the cluster's folder, in a spelling short enough for Unix sockets.
        user: name of the user who runs everything.
        host: short host name.
        ports: TCP ports.
        plugin_dirs: Slurm's plugin folders; empty means the compiled-in one.
        version: Slurm's release, for example ``(22, 5)``.
        accounting: slurmdbd keeps the job records.
        overrides: settings that tests vary.
    """

    base: Path
    user: str
    host: str
    ports: Ports
    plugin_dirs: tuple[Path, ...]
    version: tuple[int, int]
    accounting: bool
    overrides: Overrides

    @property
    def node_names(self) -> tuple[str, ...]:
        """``node1``, ``node2`` and so on."""
        return tuple(f"node{i}" for i in range(1, self.overrides.nodes + 1))

    @property
    def munge_socket(self) -> Path:
        """Socket of this cluster's own munged."""
        return self.base / "run" / "munge.socket"


def _lines(pairs: Sequence[tuple[str, object]]) -> str:
    return "".join(f"{key}={value}\n" for key, value in pairs)


def _plugin_dir(s: SlurmSettings) -> list[tuple[str, object]]:
    if not s.plugin_dirs:
        return []
    return [("PluginDir", ":".join(str(folder) for folder in s.plugin_dirs))]


def slurm_conf(s: SlurmSettings) -> str:
    """Render ``slurm.conf``.

    Only keys that Slurm 21.08 to 24.11 know, and only where the default does not serve: the
    ``none`` plugins (task, switch, accounting) were dropped from later releases, where leaving
    the key out means the same.
    """
    o = s.overrides
    accounting: list[tuple[str, object]] = []
    if s.accounting:
        accounting = [
            ("AccountingStorageType", "accounting_storage/slurmdbd"),
            ("AccountingStorageHost", "localhost"),
            ("AccountingStoragePort", s.ports.slurmdbd),
            # For auth/munge the "password" is the socket of the munged to use.
            ("AccountingStoragePass", s.munge_socket),
            ("AccountingStoreFlags", "job_comment"),
        ]
    head = [
        ("ClusterName", CLUSTER_NAME),
        ("SlurmctldHost", f"{s.host}(127.0.0.1)"),
        ("SlurmUser", s.user),
        ("SlurmdUser", s.user),
        ("SlurmctldPort", s.ports.slurmctld),
        ("AuthType", "auth/munge"),
        ("AuthInfo", f"socket={s.munge_socket}"),
        ("CredType", "cred/munge"),
        ("StateSaveLocation", s.base / "state"),
        ("SlurmdSpoolDir", s.base / "spool/%n"),
        ("SlurmctldPidFile", s.base / "run/slurmctld.pid"),
        ("SlurmdPidFile", s.base / "run/slurmd-%n.pid"),
        ("SlurmctldLogFile", s.base / "log/slurmctld.log"),
        ("SlurmdLogFile", s.base / "log/%n.log"),
        *_plugin_dir(s),
        ("MailProg", "/bin/true"),
        ("ProctrackType", "proctrack/linuxproc"),
        ("MpiDefault", "none"),
        ("SelectType", "select/cons_tres"),
        ("SelectTypeParameters", "CR_CPU_Memory"),
        ("SchedulerType", "sched/backfill"),
        (
            "SchedulerParameters",
            "batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0",
        ),
        ("SlurmdParameters", "config_overrides"),
        ("ReturnToService", 2),
        ("KillWait", o.kill_wait),
        ("MinJobAge", o.min_job_age),
        ("MaxArraySize", o.max_array_size),
        ("SlurmctldTimeout", 30),
        ("SlurmdTimeout", o.slurmd_timeout),
        ("GresTypes", "gpu"),
        ("PreemptType", "preempt/partition_prio"),
        ("PreemptMode", "REQUEUE"),
        ("DefMemPerCPU", 100),
        ("JobAcctGatherType", "jobacct_gather/linux"),
        ("JobAcctGatherFrequency", "task=2"),
        *accounting,
    ]
    nodes = "".join(
        f"NodeName={name} NodeHostname={s.host} NodeAddr=127.0.0.1 Port={port} CPUs={o.cpus} "
        f"RealMemory={o.memory_mb} Gres=gpu:{o.gpus} State=UNKNOWN\n"
        for name, port in zip(s.node_names, s.ports.slurmd, strict=True)
    )
    times = "MaxTime=1-0 DefaultTime=10 State=UP"
    partitions = (
        f"PartitionName=main Nodes=ALL Default=YES {times} PriorityTier=1\n"
        f"PartitionName=hi Nodes=ALL {times} PriorityTier=10 PreemptMode=off\n"
    ) + "".join(f"PartitionName={name} Nodes=ALL {times}\n" for name in o.partitions)
    return _lines(head) + nodes + partitions


def gres_conf(s: SlurmSettings) -> str:
    """Render ``gres.conf``: with ``File=`` Slurm sets CUDA_VISIBLE_DEVICES, with ``Count=`` not."""
    names = ",".join(s.node_names)
    return "AutoDetect=off\n" + "".join(
        f"NodeName={names} Name=gpu File={file}\n" for file in GPU_FILES[: s.overrides.gpus]
    )


def cgroup_conf(s: SlurmSettings) -> str:
    """Render ``cgroup.conf`` so that Slurm leaves control groups alone.

    ``CgroupPlugin=disabled`` came with 23.02; ``CgroupAutomount`` is unknown from 24.05 on.
    """
    return "CgroupPlugin=disabled\n" if s.version >= (23, 2) else "CgroupAutomount=no\n"


def slurmdbd_conf(s: SlurmSettings, password: str) -> str:
    """Render ``slurmdbd.conf``, which holds a password: write it with mode 600."""
    return _lines(
        [
            ("AuthType", "auth/munge"),
            ("AuthInfo", f"socket={s.munge_socket}"),
            ("DbdHost", "localhost"),
            ("DbdPort", s.ports.slurmdbd),
            ("SlurmUser", s.user),
            ("PidFile", s.base / "run/slurmdbd.pid"),
            ("LogFile", s.base / "log/slurmdbd.log"),
            *_plugin_dir(s),
            ("StorageType", "accounting_storage/mysql"),
            # "localhost" makes the client library take the Unix socket, not TCP.
            ("StorageHost", "localhost"),
            ("StorageLoc", DATABASE),
            ("StorageUser", DATABASE_USER),
            ("StoragePass", password),
        ]
    )


def _quoted(value: str) -> str:
    """Quote one argument of ``sshd_config``.

    Raises:
        ValueError: a quote, a backslash or a control character, which the file has no way to write.
    """
    if re.search(r'["\\\x00-\x1f]', value):
        raise ValueError(f"{value!r} cannot stand in sshd_config")
    return f'"{value}"'


def sshd_config(
    *,
    base: Path,
    user: str,
    bind: str,
    port: int,
    environment: Mapping[str, str],
    helpers: Sequence[tuple[str, Path]] = (),
    penalties: bool = False,
) -> str:
    """Render ``sshd_config``: keys only, one user, and Slurm's variables in every session.

    Args:
        base: the cluster's folder; ``ssh/`` in it holds the keys.
        user: the only user who may log in.
        bind: address to listen on.
        port: TCP port.
        environment: variables of every session, also those of plain ``ssh host command``.
        helpers: settings that name the helper programs of an unpacked OpenSSH.
        penalties: this sshd knows ``PerSourcePenalties`` (OpenSSH 9.8); they are switched off,
            since every client here has the same address.
    """
    # The first SetEnv line wins and later ones are ignored, so there is only one.
    variables = " ".join(_quoted(f"{key}={value}") for key, value in environment.items())
    lines = [
        f"Port {port}",
        f"ListenAddress {bind}",
        f"HostKey {_quoted(str(base / 'ssh/host_ed25519'))}",
        f"AuthorizedKeysFile {_quoted(str(base / 'ssh/authorized_keys'))}",
        f"AllowUsers {user}",
        "PermitRootLogin prohibit-password",
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "StrictModes no",
        "UseDNS no",
        "PidFile none",
        "MaxSessions 100",
        "MaxStartups 100",
        "Subsystem sftp internal-sftp",
        f"SetEnv {variables}",
        *(f"{key} {_quoted(str(path))}" for key, path in helpers),
    ]
    if penalties:
        lines.append("PerSourcePenalties no")
    return "\n".join(lines) + "\n"
