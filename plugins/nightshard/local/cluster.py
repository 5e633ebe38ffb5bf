"""The local cluster: up, status, down."""

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nightshard.core.errors import NightshardError
from nightshard.core.settings import Settings
from nightshard.local import processes as ps
from nightshard.local import slurm_config
from nightshard.local.daemons import (
    Daemon,
    daemon_environment,
    daemons,
    prepare_database,
    prepare_sshd,
    session_environment,
)
from nightshard.local.debian import Programs, find_programs
from nightshard.local.info import FILE_NAME, ClusterInfo
from nightshard.local.layout import PLAIN_PATH, Layout, current_user, write_private
from nightshard.local.processes import DaemonError, Process
from nightshard.local.slurm_config import Overrides, SlurmSettings

STARTUP_ATTEMPTS = 3
"""Two clusters that start at once may draw the same port; the loser draws again."""


@dataclass(frozen=True, slots=True)
class SshAccess:
    """How sshd is reached.

    Attributes:
        bind: address that sshd listens on.
        host: name or address under which clients reach it.
        port: TCP port; None draws a free one and keeps it from then on.
    """

    bind: str = "127.0.0.1"
    host: str = "127.0.0.1"
    port: int | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a cluster should look like now."""

    settings: SlurmSettings
    programs: Programs
    environment: dict[str, str]
    daemons: list[Daemon]
    host_key: str


class LocalCluster:
    """A real Slurm cluster on this machine, in one folder, run by the calling user.

    Args:
        root: the cluster's own folder.
        accounting: also run mariadbd and slurmdbd, so that ``sacct`` works.
        overrides: Slurm settings that tests vary.
        access: how sshd is reached; by default on loopback and a free port.
        packages: where Debian packages are unpacked if programs are missing; by default
            ``debian`` in Nightshard's state folder.
    """

    def __init__(
        self,
        root: Path,
        accounting: bool = False,
        overrides: Overrides | None = None,
        access: SshAccess | None = None,
        packages: Path | None = None,
    ) -> None:
        self.layout = Layout(root.absolute())
        self.root = self.layout.root
        self.accounting = accounting
        self.overrides = overrides or Overrides()
        self.access = access or SshAccess()
        self.packages = packages or Settings.from_env(os.environ).state / "debian"

    def up(self) -> ClusterInfo:
        """Start the cluster, or repair what died of it; what lives and fits is left alone.

        Changed settings restart it. Two calls at once wait for each other.

        Raises:
            UserError: this machine cannot run it, or another program holds the wanted port.
            NightshardError: a daemon did not start; the message ends with its last log lines.
        """
        programs = find_programs(self.packages, accounting=self.accounting)
        self.layout.make()
        with ps.locked(self.root / "lock"):
            for attempt in range(STARTUP_ATTEMPTS):
                plan = self._plan(programs)
                try:
                    return self._start(plan)
                except DaemonError as error:
                    lost_port = self._ports_taken(plan)
                    self._stop_everything()
                    if not lost_port or attempt == STARTUP_ATTEMPTS - 1:
                        raise NightshardError(f"The local cluster did not start: {error}") from None
        raise AssertionError  # the loop returns or raises

    def status(self) -> ClusterInfo | None:
        """Describe the cluster if any of it runs; None if it is down."""
        try:
            info = ClusterInfo.from_json((self.root / FILE_NAME).read_text())
        except (OSError, ValueError):
            return None
        alive = {name: process.pid for name, process in self.layout.processes().items()}
        if not alive:
            return None
        wanted = {*info.pids, *info.missing}
        return dataclasses.replace(info, pids=alive, missing=tuple(sorted(wanted - {*alive})))

    def down(self) -> None:
        """Cancel the cluster's jobs and stop every process of it; harmless if it is down.

        Files stay: keys, ports, job records and ``shared``.
        """
        if not self.root.is_dir():
            return
        with ps.locked(self.root / "lock"):
            self._stop_everything()
            (self.root / FILE_NAME).unlink(missing_ok=True)
            self.layout.drop_alias()

    def answering_nodes(self, info: ClusterInfo) -> set[str]:
        """Ask the controller which nodes answer it."""
        lines = _ask(info, "sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return {line.split()[0] for line in lines if _answers(line)}

    def wait(self, stop: threading.Event, *, interval: float = 5.0) -> None:
        """Keep the cluster up, repairing it every ``interval`` seconds, until ``stop`` is set."""
        while not stop.wait(interval):
            status = self.status()
            if status is None or status.missing:
                self.up()

    def _plan(self, programs: Programs) -> _Plan:
        """Decide on ports, write all files, and stop what runs on other settings."""
        alive = self.layout.processes()
        user = current_user().pw_name
        names = tuple(f"node{i}" for i in range(1, self.overrides.nodes + 1))
        ports = self.layout.ports({*alive}, names, self.access.port)
        base = self.layout.base()
        settings = SlurmSettings(
            base=base,
            user=user,
            host=socket.gethostname().split(".")[0],
            ports=ports,
            plugin_dirs=_plain(base, programs.plugin_dirs),
            version=programs.version,
            accounting=self.accounting,
            overrides=self.overrides,
        )
        host_key = self.layout.make_keys(self.access.host, ports.ssh)
        files = {
            "slurm.conf": slurm_config.slurm_conf(settings),
            "gres.conf": slurm_config.gres_conf(settings),
            "cgroup.conf": slurm_config.cgroup_conf(settings),
        }
        if self.accounting:
            password = self.layout.secret("database.password")
            files["slurmdbd.conf"] = slurm_config.slurmdbd_conf(settings, password)
        sshd = slurm_config.sshd_config(
            base=base,
            user=user,
            bind=self.access.bind,
            port=ports.ssh,
            environment=session_environment(self.layout, settings, programs.clients),
            helpers=programs.sshd_helpers,
            penalties=programs.penalties,
        )
        if self._differ(files):
            self._stop_everything()
        elif self._differ({"sshd_config": sshd}) and "sshd" in alive:
            ps.stop([alive["sshd"]])
        for name, text in {**files, "sshd_config": sshd}.items():
            write_private(self.root / "etc" / name, text)
        environment = daemon_environment(self.layout, settings, programs)
        return _Plan(
            settings=settings,
            programs=programs,
            environment=environment,
            daemons=daemons(self.layout, settings, programs, self.access.bind),
            host_key=host_key,
        )

    def _differ(self, files: dict[str, str]) -> bool:
        def content(name: str) -> str | None:
            path = self.root / "etc" / name
            return path.read_text() if path.exists() else None

        return any(content(name) != text for name, text in files.items())

    def _start(self, plan: _Plan) -> ClusterInfo:
        alive = self.layout.processes()
        base = plan.settings.base
        prepare_sshd(base, plan.programs.nss_wrapper)
        if self.accounting and "mariadbd" not in alive:
            password = self.layout.secret("database.password")
            prepare_database(base, plan.programs, plan.environment, password)
        for name in plan.settings.node_names:
            (base / "spool" / name).mkdir(exist_ok=True)
        for daemon in plan.daemons:
            if daemon.name in alive:
                continue
            log = self.root / "log" / f"{daemon.name}.out"
            process = ps.start(daemon.argv, {**plan.environment, **daemon.environment}, log)
            alive[daemon.name] = process
            self.layout.record(alive)
            # Nodes are awaited together below; the others are needed by what follows.
            if daemon.name not in plan.settings.node_names:
                ps.wait_until(daemon.ready, what=daemon.name, alive=process.alive, log=log)
        info = self._describe(plan, alive)
        self._await_nodes(plan, info, alive)
        if self.accounting:
            self._await_accounting(plan, info)
        write_private(self.root / FILE_NAME, info.to_json())
        return info

    def _describe(self, plan: _Plan, alive: dict[str, Process]) -> ClusterInfo:
        return ClusterInfo(
            root=self.root,
            shared=self.layout.shared,
            ssh_host=self.access.host,
            ssh_port=plan.settings.ports.ssh,
            ssh_user=plan.settings.user,
            ssh_key=self.layout.ssh_key,
            known_hosts=self.layout.known_hosts,
            host_key=plan.host_key,
            slurm_conf=plan.settings.base / "etc/slurm.conf",
            bin_dirs=(plan.programs.clients,),
            accounting=self.accounting,
            nodes=plan.settings.node_names,
            pids={name: process.pid for name, process in alive.items()},
        )

    def _await_nodes(self, plan: _Plan, info: ClusterInfo, alive: dict[str, Process]) -> None:
        wanted = {*info.nodes}
        ps.wait_until(
            lambda: self.answering_nodes(info) >= wanted,
            what="slurmd",
            alive=lambda: all(alive[name].alive() for name in wanted),
            log=self.root / "log" / f"{info.nodes[0]}.log",
        )

    def _await_accounting(self, plan: _Plan, info: ClusterInfo) -> None:
        """Wait until slurmctld has registered itself with slurmdbd."""

        def ready() -> bool:
            fields = "format=cluster,controlport"
            shown = _ask(info, "sacctmgr", "--noheader", "--parsable2", "show", "cluster", fields)
            return f"{slurm_config.CLUSTER_NAME}|{plan.settings.ports.slurmctld}" in shown

        ps.wait_until(ready, what="slurmdbd", log=self.root / "log/slurmdbd.log")

    def _ports_taken(self, plan: _Plan) -> bool:
        """Tell whether another program holds a port of a daemon that is not running."""
        alive = self.layout.processes()
        ports = plan.settings.ports
        held = {"sshd": ports.ssh, "slurmctld": ports.slurmctld}
        held |= zip(plan.settings.node_names, ports.slurmd, strict=True)
        if self.accounting:
            held["slurmdbd"] = ports.slurmdbd
        return any(not ps.port_is_free(p) for name, p in held.items() if name not in alive)

    def _stop_everything(self) -> None:
        """Cancel jobs, then end the daemons in order, then whatever else is the cluster's."""
        alive = self.layout.processes()
        if {"munged", "slurmctld"} <= alive.keys():
            self._cancel_jobs()
        base = self.layout.base()
        # Whoever hangs below a daemon is found now: once its parent is gone, it looks like anyone.
        family = set(ps.identify(ps.descendants(process.pid for process in alive.values())))
        last = ("slurmdbd", "mariadbd", "munged")
        ps.stop([process for name, process in alive.items() if name not in last])
        for name in last:
            if name in alive:
                ps.stop([alive[name]], grace=10.0)
        for _ in range(3):
            pids = ps.marked(self.root, base / "etc/slurm.conf")
            pids |= ps.step_daemons(base / "spool") | ps.ssh_sessions(
                self.layout.known_ports().get("sshd")
            )
            family |= {*ps.identify(ps.descendants(pids))}
            rest = [process for process in family if process.alive()]
            if not rest:
                break
            ps.stop(rest, grace=1.0)
        self.layout.record({})

    def _cancel_jobs(self) -> None:
        """Cancel what runs or waits, so that the next ``up`` does not take it up again."""
        try:
            info = ClusterInfo.from_json((self.root / FILE_NAME).read_text())
        except (OSError, ValueError):
            return
        if not _ask(info, "squeue", "--noheader"):
            return
        _ask(info, "scancel", f"--user={info.ssh_user}")
        deadline = time.monotonic() + self.overrides.kill_wait + 2
        while _ask(info, "squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.05)


def _ask(info: ClusterInfo, command: str, *arguments: str) -> str:
    """Run a Slurm command; its output, empty where it failed or hung for ten seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        done = subprocess.run(
            [info.bin_dirs[0] / command, *arguments],
            env=info.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
        return done.stdout if done.returncode == 0 else ""
    return ""


def _answers(line: str) -> bool:
    """Tell whether a line ``node state`` of sinfo shows a node that answers.

    A trailing ``*`` marks one that does not; a drained node answers, somebody drained it.
    """
    state = line.rsplit(maxsplit=1)[-1] if line.strip() else "unknown"
    return not state.endswith("*") and not state.startswith(("unknown", "down", "inval"))


def _plain(base: Path, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Give folders with odd names a link below ``base``, since slurm.conf cannot quote them."""
    plain = []
    for index, folder in enumerate(folders):
        if PLAIN_PATH.fullmatch(str(folder)):
            plain.append(folder)
            continue
        link = base / "run" / f"plugins-{index}"
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        plain.append(link)
    return tuple(plain)


@contextlib.contextmanager
def running(
    root: Path, accounting: bool = False, overrides: Overrides | None = None
) -> Iterator[ClusterInfo]:
    """Run a cluster for the length of a ``with`` block, and remove its folder afterwards.

    Raises:
        UserError: this machine cannot run it.
        NightshardError: a daemon did not start.
    """
    cluster = LocalCluster(root, accounting, overrides)
    try:
        yield cluster.up()
    finally:
        cluster.down()
        shutil.rmtree(root, ignore_errors=True)
