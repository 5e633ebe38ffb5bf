"""Where the programs come from: installed ones, or Debian packages unpacked without root."""

import os
import platform
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nightshard.core.errors import UserError
from nightshard.local.processes import locked

TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLIENTS = (
    *("sacct", "sacctmgr", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol"),
    *("sdiag", "sinfo", "sprio", "squeue", "sreport", "srun", "sshare", "sstat", "strigger"),
)

SLURM = (
    *("slurmctld", "slurmd", "slurmstepd"),
    *("sbatch", "squeue", "sacct", "sacctmgr", "scancel", "scontrol", "sinfo", "srun"),
)
PACKAGES = {
    "slurm": ("slurm-wlm",),
    "munge": ("munge",),
    "ssh": ("openssh-server",),
    "slurmdbd": ("slurmdbd",),
    # Ubuntu 22.04 has only the versioned name.
    "mariadb": ("mariadb-server-core", "mariadb-server-core-10.6"),
    "users": ("libnss-wrapper",),
    "chromium": ("chromium",),
}
"""Group of programs -> package that holds them, in the order in which names are tried."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that a cluster runs.

    Attributes:
        slurmctld: and the other daemons: absolute paths.
        slurmdbd: None unless accounting was asked for, like ``mariadbd``.
        mariadb_share: folder that holds MariaDB's ``mysql`` or ``mariadb`` folder of SQL scripts.
        nss_wrapper: library that shows sshd a user list of our own, None where it needs none.
        sshd_helpers: ``sshd_config`` settings for the helper programs of an unpacked sshd.
        penalties: this sshd punishes failed logins (OpenSSH 9.8 and later).
        clients: folder in which a user finds ``sbatch`` and the like.
        library_path: value of LD_LIBRARY_PATH for the daemons; empty if all are installed.
        plugin_dirs: Slurm's plugin folders; empty means the compiled-in one.
        version: Slurm's release, for example ``(22, 5)``.
    """

    slurmctld: Path
    slurmd: Path
    slurmstepd: Path
    munged: Path
    sshd: Path
    slurmdbd: Path | None
    mariadbd: Path | None
    mariadb_share: Path
    nss_wrapper: Path | None
    sshd_helpers: tuple[tuple[str, Path], ...]
    penalties: bool
    clients: Path
    library_path: str
    plugin_dirs: tuple[Path, ...]
    version: tuple[int, int]


def check_platform() -> None:
    """Refuse a platform on which the cluster cannot run.

    Raises:
        UserError: not Linux on x86_64 or aarch64.
    """
    system, machine = sys.platform, platform.machine()
    if system != "linux" or machine not in TRIPLETS:
        raise UserError(
            f"The local cluster runs on Linux on x86_64 or aarch64, not on {system} on {machine}; "
            "use the Docker compose file, or a Linux machine."
        )


def install_line(accounting: bool) -> str:
    """Return the one line that installs everything."""
    names = ["slurm-wlm", "munge", "openssh-server"]
    names += ["slurmdbd", "mariadb-server"] if accounting else []
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install --no-install-recommends {' '.join(names)}"


def parse_version(text: str) -> tuple[int, int]:
    """Read Slurm's release from ``slurmctld -V``, for example ``slurm-wlm 22.05.8``.

    Raises:
        UserError: there is no version in the text.
    """
    match = re.search(r"\b(\d+)\.(\d+)", text)
    if match is None:
        raise UserError(
            f"slurmctld -V answered {text.strip()!r}, which names no version; "
            "reinstall Slurm, or remove it so that a working one is fetched."
        )
    return int(match[1]), int(match[2])


def needs_own_users(root_user: bool, names: set[str], root_password: str) -> bool:
    """Tell whether sshd needs a user list of our own.

    As root it insists on a user named ``sshd``, and without PAM it refuses a locked account.
    """
    return root_user and ("sshd" not in names or root_password.startswith("!"))


def _root_password() -> str:
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1] for line in lines if line.startswith("root:")), "")


class PackageFolder:
    """A private folder of unpacked packages, shared by all clusters of one user.

    Args:
        folder: where packages are kept; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.triplet = TRIPLETS[platform.machine()]
        self.libraries = self.root / "usr/lib" / self.triplet
        self.nss_wrapper = self.libraries / "libnss_wrapper.so"

    def program(self, name: str) -> Path | None:
        """Return an unpacked program, or None."""
        for place in ("usr/sbin", "usr/bin", "usr/libexec", "sbin", "bin"):
            path = self.root / place / name
            if os.access(path, os.X_OK):
                return path
        return None

    def fetch(self, groups: Sequence[str], install: str) -> None:
        """Download and unpack what these groups need beyond the installed packages.

        apt works out the closure and checks the signatures; nothing is installed.

        Args:
            groups: of :data:`PACKAGES`.
            install: a line that installs them in place of this.

        Raises:
            UserError: there is no apt here, or it could not download.
        """
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise UserError(
                f"Programs are missing here ({', '.join(groups)}) and there is no apt-get to fetch "
                "them; install them with this system's package manager."
            )
        (self.folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "lists/partial").mkdir(parents=True, exist_ok=True)
        own_lists = [f"-oDir::State::Lists={self.folder}/lists"]
        problem = self._download(groups, [])
        if problem:
            # Missing or outdated lists: fetch some of our own, which needs no root either.
            self._apt(["update"], own_lists)
            problem = self._download(groups, own_lists)
        if problem:
            raise UserError(
                f"Missing programs could not be downloaded ({problem}); install them with: "
                f"{install}"
            )
        for package in sorted((self.folder / "cache/archives").glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, self.root], check=True)  # noqa: S607
        self._name_alternatives()
        self._wrap_clients()
        shutil.rmtree(self.folder / "cache")

    def _download(self, groups: Sequence[str], options: Sequence[str]) -> str:
        """Download the closure of the groups; return apt's complaint, empty if there is none."""
        problem = ""
        for alternative in range(max(len(PACKAGES[group]) for group in groups)):
            names = [PACKAGES[g][min(alternative, len(PACKAGES[g]) - 1)] for g in groups]
            problem = self._apt(["--download-only", "install", *names], options)
            if not problem:
                break
        return problem

    def _apt(self, arguments: Sequence[str], options: Sequence[str]) -> str:
        command = ["apt-get", "-qq", "-y", "-oDebug::NoLocking=1", "-oAPT::Install-Recommends=0"]
        command += ["-oAcquire::Retries=2", "-oAcquire::http::Timeout=20"]
        command += ["-oAPT::Sandbox::User=root", f"-oDir::Cache={self.folder}/cache"]
        done = subprocess.run(
            [*command, *options, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
        if done.returncode == 0:
            return ""
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        return (errors or [f"apt-get ended with {done.returncode}"])[0].removeprefix("E: ")

    def _name_alternatives(self) -> None:
        """Give Debian's ``slurmd-wlm`` and the like their plain names.

        Under the long name Slurm silently drops every ``Gres=`` (measured with 22.05).
        """
        for program in (self.root / "usr/sbin").glob("*-wlm"):
            plain = program.with_name(program.name.removesuffix("-wlm"))
            if not plain.exists():
                plain.symlink_to(program.name)

    def _wrap_clients(self) -> None:
        """Write client commands that find their libraries without LD_LIBRARY_PATH.

        ``sbatch`` hands its environment on to the job, where such a variable has no place.
        """
        loader = LOADERS[platform.machine()]
        (self.folder / "bin").mkdir(exist_ok=True)
        for name in (*CLIENTS, "munge", "unmunge"):
            program = self.program(name)
            if program is not None:
                wrapper = self.folder / "bin" / name
                wrapper.write_text(
                    "#!/bin/sh\n"
                    f"exec {loader} --library-path {shlex.quote(self.library_path)} "
                    f'--argv0 {name} {shlex.quote(str(program))} "$@"\n'
                )
                wrapper.chmod(0o755)

    @property
    def library_path(self) -> str:
        """Search path of the unpacked libraries."""
        folders = [self.libraries, self.libraries / "slurm-wlm", self.root / "lib" / self.triplet]
        return ":".join(str(folder) for folder in folders)


def _installed(name: str) -> Path | None:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    # A name relative to the working folder would not survive a daemon's chdir.
    return Path(found).absolute() if found else None


def _wanted_groups(accounting: bool) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {"slurm": SLURM, "munge": ("munged",), "ssh": ("sshd",)}
    if accounting:
        groups |= {"slurmdbd": ("slurmdbd",), "mariadb": ("mariadbd",)}
    return groups


def find_programs(folder: Path, *, accounting: bool) -> Programs:
    """Find every program of a cluster, fetching packages into ``folder`` where some are missing.

    A group is taken whole from one place, so that no ``sbatch`` meets a foreign ``slurmctld``.

    Raises:
        UserError: wrong platform, or the programs are missing and cannot be fetched.
    """
    check_platform()
    packages = PackageFolder(folder)
    groups = _wanted_groups(accounting)
    missing = {g for g, names in groups.items() if not all(_installed(name) for name in names)}
    own_users = needs_own_users(
        os.geteuid() == 0, {entry.pw_name for entry in pwd.getpwall()}, _root_password()
    )

    def absent() -> list[str]:
        names = [g for g in groups if g in missing and not all(map(packages.program, groups[g]))]
        return names + (["users"] if own_users and not packages.nss_wrapper.exists() else [])

    if absent():
        with locked(folder / "lock"):
            if wanted := absent():
                packages.fetch(wanted, install_line(accounting))
        if left := absent():
            raise UserError(
                f"The fetched packages hold no programs for {', '.join(left)}; "
                f"install them with: {install_line(accounting)}"
            )
    found: dict[str, Path] = {}
    for group, names in groups.items():
        for name in names:
            path = packages.program(name) if group in missing else _installed(name)
            if path is not None:
                found[name] = path
    return _assemble(packages, missing, found, packages.nss_wrapper if own_users else None)


def _assemble(
    packages: PackageFolder, missing: set[str], found: dict[str, Path], nss_wrapper: Path | None
) -> Programs:
    library_path = packages.library_path if missing else ""
    installed_plugins = Path("/usr/lib") / packages.triplet / "slurm-wlm"
    plugins = [packages.libraries / "slurm-wlm", installed_plugins]
    version = subprocess.run(
        [found["slurmctld"], "-V"],
        env={"LD_LIBRARY_PATH": library_path, "PATH": SYSTEM_PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    helpers = (packages.root if "ssh" in missing else Path("/")) / "usr/lib/openssh"
    settings = (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth"))
    return Programs(
        slurmctld=found["slurmctld"],
        slurmd=found["slurmd"],
        slurmstepd=found["slurmstepd"],
        munged=found["munged"],
        sshd=found["sshd"],
        slurmdbd=found.get("slurmdbd"),
        mariadbd=found.get("mariadbd"),
        mariadb_share=(packages.root if "mariadb" in missing else Path("/")) / "usr/share",
        nss_wrapper=nss_wrapper,
        sshd_helpers=tuple(
            (key, helpers / name) for key, name in settings if (helpers / name).exists()
        )
        if "ssh" in missing
        else (),
        penalties=(helpers / "sshd-session").exists(),
        clients=packages.folder / "bin" if "slurm" in missing else found["sbatch"].parent,
        library_path=library_path,
        plugin_dirs=tuple(p for p in plugins if p.is_dir())
        if missing & {"slurm", "slurmdbd"}
        else (),
        version=parse_version(version.stdout or version.stderr),
    )
