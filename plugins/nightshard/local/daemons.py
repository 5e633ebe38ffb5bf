"""The daemons of a cluster: how each is started, and when it answers."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nightshard.local.debian import SYSTEM_PATH, Programs
from nightshard.local.layout import Layout, current_user, write_private
from nightshard.local.processes import (
    MARKER,
    DaemonError,
    accepts_tcp,
    accepts_unix,
    log_tail,
)
from nightshard.local.slurm_config import DATABASE, DATABASE_USER, SlurmSettings

MARIADB_OPTIONS = (
    "--skip-networking",
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    # slurmdbd asks for at least this much.
    "--innodb-lock-wait-timeout=900",
)


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon.

    Attributes:
        name: key in ``pids`` and name of its log.
        argv: command line; it stays in the foreground.
        ready: tells whether it answers.
        environment: variables beyond those that all daemons get.
    """

    name: str
    argv: tuple[str | Path, ...]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


def session_environment(layout: Layout, settings: SlurmSettings, clients: Path) -> dict[str, str]:
    """Return the variables that an SSH session, and so a job, finds."""
    path = SYSTEM_PATH if str(clients) in SYSTEM_PATH.split(":") else f"{clients}:{SYSTEM_PATH}"
    return {
        "PATH": path,
        "SLURM_CONF": str(settings.base / "etc/slurm.conf"),
        MARKER: str(layout.root),
        # Below level 2 a bash that sshd starts reads ~/.bashrc, also for a single command; what a
        # person has there is slow at best (bash(1), "Invocation").
        "SHLVL": "1",
    }


def daemon_environment(
    layout: Layout, settings: SlurmSettings, programs: Programs
) -> dict[str, str]:
    """Return the variables of every daemon: nothing of the caller's shell but its home."""
    user = current_user()
    environment = session_environment(layout, settings, programs.clients)
    environment |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    if programs.library_path:
        environment["LD_LIBRARY_PATH"] = programs.library_path
    return environment


def daemons(
    layout: Layout, settings: SlurmSettings, programs: Programs, ssh_bind: str
) -> list[Daemon]:
    """List the daemons in the order in which they start."""
    base, ports = settings.base, settings.ports
    munge = base / "run" / "munge"
    conf = base / "etc/slurm.conf"
    wanted = [
        Daemon(
            "munged",
            (
                programs.munged,
                "--foreground",
                # Its checks of parent folders are for a key that root shares between users.
                "--force",
                f"--key-file={base / 'etc/munge.key'}",
                f"--socket={settings.munge_socket}",
                f"--pid-file={munge}.pid",
                f"--log-file={base / 'log/munged.log'}",
                f"--seed-file={munge}.seed",
                "--num-threads=2",
            ),
            lambda: accepts_unix(settings.munge_socket),
        )
    ]
    if settings.accounting:
        wanted += _accounting_daemons(settings, programs)
    wanted.append(
        Daemon(
            "slurmctld",
            (programs.slurmctld, "-D", "-i", "-f", conf),
            lambda: accepts_tcp(ports.slurmctld),
        )
    )
    for name, port in zip(settings.node_names, ports.slurmd, strict=True):
        wanted.append(
            Daemon(
                name,
                (programs.slurmd, "-D", "-N", name, "-d", programs.slurmstepd, "-f", conf),
                lambda port=port: accepts_tcp(port),  # type: ignore[misc]
            )
        )
    host = "127.0.0.1" if ssh_bind in {"0.0.0.0", "::"} else ssh_bind  # noqa: S104 - no bind
    wanted.append(
        Daemon(
            "sshd",
            (programs.sshd, "-D", "-e", "-f", base / "etc/sshd_config"),
            lambda: accepts_tcp(ports.ssh, host),
            _user_list(base, programs.nss_wrapper),
        )
    )
    return wanted


def _user_list(base: Path, wrapper: Path | None) -> dict[str, str]:
    if wrapper is None:
        return {}
    return {
        "LD_PRELOAD": str(wrapper),
        "NSS_WRAPPER_PASSWD": str(base / "etc/passwd"),
        "NSS_WRAPPER_GROUP": str(base / "etc/group"),
        "NSS_WRAPPER_SHADOW": str(base / "etc/shadow"),
    }


def prepare_sshd(base: Path, wrapper: Path | None) -> None:
    """Give an sshd that runs as root what it insists on: its empty folder, and its user."""
    if os.geteuid() != 0:
        return
    Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    if wrapper is not None:
        names = Path("/etc/passwd").read_text()
        if "\nsshd:" not in names:
            names = names.rstrip("\n") + "\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
        write_private(base / "etc/passwd", names, 0o644)
        write_private(base / "etc/group", Path("/etc/group").read_text(), 0o644)
        write_private(base / "etc/shadow", f"{current_user().pw_name}:*:19000:0:99999:7:::\n")


def _accounting_daemons(settings: SlurmSettings, programs: Programs) -> list[Daemon]:
    assert programs.mariadbd is not None  # noqa: S101 - find_programs(accounting=True) found both
    assert programs.slurmdbd is not None  # noqa: S101
    socket = settings.base / "run/mariadb.socket"
    return [
        Daemon(
            "mariadbd",
            (
                *_mariadb(settings.base, programs),
                f"--socket={socket}",
                f"--pid-file={settings.base / 'run/mariadb.pid'}",
                f"--init-file={settings.base / 'etc/mariadb.sql'}",
            ),
            lambda: accepts_unix(socket),
        ),
        Daemon(
            "slurmdbd",
            (programs.slurmdbd, "-D"),
            lambda: accepts_tcp(settings.ports.slurmdbd),
            # Slurm names no socket to MariaDB's client library, which then looks here.
            {"MYSQL_UNIX_PORT": str(socket)},
        ),
    ]


def _mariadb(base: Path, programs: Programs) -> tuple[str | Path, ...]:
    assert programs.mariadbd is not None  # noqa: S101
    return (
        programs.mariadbd,
        "--no-defaults",
        f"--datadir={base / 'mariadb'}",
        f"--lc-messages-dir={_mariadb_share(programs)}",
        *(("--user=root",) if os.geteuid() == 0 else ()),
        *MARIADB_OPTIONS,
    )


def _mariadb_share(programs: Programs) -> Path:
    folders = [programs.mariadb_share / name for name in ("mariadb", "mysql")]
    return next((f for f in folders if list(f.glob("*_system_tables.sql"))), folders[-1])


def prepare_database(
    base: Path, programs: Programs, environment: Mapping[str, str], password: str
) -> None:
    """Create MariaDB's system tables once, and the statements that make slurmdbd's account.

    Does what ``mariadb-install-db`` does, from the same SQL files: that script needs programs of
    the client package as well.

    Raises:
        DaemonError: MariaDB could not write its tables.
    """
    account = f"'{DATABASE_USER}'@'localhost'"
    write_private(
        base / "etc/mariadb.sql",
        f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
        f"CREATE USER IF NOT EXISTS {account};\n"
        f"ALTER USER {account} IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON {DATABASE}.* TO {account};\n",
    )
    data, done = base / "mariadb", base / "state/mariadb-is-made"
    if done.exists() and data.is_dir():
        return
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    share = _mariadb_share(programs)
    statements = ["CREATE DATABASE mysql;", "USE mysql;"]
    statements += ["SET @skip_auth_root_nopasswd=NULL;", "SET @auth_root_socket=NULL;"]
    for part in ("system_tables", "performance_tables", "system_tables_data"):
        for path in share.glob(f"m*_{part}.sql"):
            lines = path.read_text().splitlines()
            statements += [line for line in lines if "@current_hostname" not in line]
    log = base / "log/mariadb-bootstrap.log"
    with log.open("w") as output:
        bootstrap = subprocess.run(
            [*_mariadb(base, programs), "--bootstrap", "--log-warnings=0"],
            input="\n".join(statements) + "\n",
            text=True,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if bootstrap.returncode != 0:
        raise DaemonError(f"MariaDB could not create its system tables: {log_tail(log)}")
    done.touch()
