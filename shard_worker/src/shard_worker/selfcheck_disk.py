"""Whether the disks of a node take what a shard writes."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shard_worker.errors import ConfigError
from shard_worker.findings import GIB, Outcome, Wish
from shard_worker.fsio import create_exclusive, write_atomic

LEAST_FREE_GIB = 1.0
LEAST_FREE_FILES = 1000
PROBE = b"x" * (1 << 20)
QUOTA_S = 5.0
NEARLY = 0.9


def check_disk(wish: Wish) -> Outcome:
    """Write to the work folder and to the temporary one as a shard does, and see what is free."""
    folders = dict.fromkeys((wish.work, Path(tempfile.gettempdir())))
    return Outcome(", ".join(map(_write_to, folders)))


def _write_to(folder: Path) -> str:
    _need_folder(folder)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".selfcheck-") as name:
            write_atomic(Path(name) / "part", PROBE)
            claim = Path(name) / "claim"
            create_exclusive(claim, b"1")
            second = _create_again(claim)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written to ({error.strerror}); check its quota, room and mode."
        ) from None
    if second:
        raise ConfigError(
            f"{folder} lets two processes create one file, so two shards could do the same work; "
            "use another file system."
        )
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize / GIB
    if free < LEAST_FREE_GIB:
        raise ConfigError(f"{folder} has {free:.2f} GiB left; free some space.")
    if status.f_files and status.f_favail < LEAST_FREE_FILES:
        raise ConfigError(f"{folder} has room for {status.f_favail} more files; remove some.")
    return f"{folder} has {free:,.0f} GiB free"


def _create_again(path: Path) -> bool:
    try:
        create_exclusive(path, b"2")
    except FileExistsError:
        return False
    return True


def _need_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"The folder {folder} does not exist; make it or name another.")


def check_links(wish: Wish) -> Outcome:
    """Make a hard link in the work folder, by which shards share their work."""
    _need_folder(wish.work)
    with tempfile.TemporaryDirectory(dir=wish.work, prefix=".selfcheck-") as name:
        source = Path(name) / "a"
        source.touch()
        try:
            (Path(name) / "b").hardlink_to(source)
        except OSError as error:
            raise ConfigError(
                f"{wish.work} makes no hard links ({error.strerror}), by which shards share their "
                "work; set defaults.balance to static in the profile, or use another folder."
            ) from None
    return Outcome("hard links work, so shards can share their work")


@dataclass(frozen=True, slots=True)
class Quota:
    """One line of a quota report.

    Attributes:
        where: the file system.
        what: ``space`` in KiB, or ``files`` in number.
        used: so much or many.
        limit: the hard limit, else the soft one; 0 for none.
    """

    where: str
    what: str
    used: int
    limit: int


def parse_quota(report: str) -> list[Quota]:
    """Read what ``quota -w`` or ``lfs quota -q`` prints; both have the same columns.

    They are file system, KiB, soft limit, hard limit, grace, files, soft limit, hard limit, grace;
    ``quota`` leaves a grace out that does not run, and a star marks what is over its soft limit.
    """
    found = []
    for line in report.splitlines():
        where, *words = line.split() or [""]
        numbers = [int(word.strip("*[]")) for word in words if re.fullmatch(r"\[?\d+\]?\*?", word)]
        if len(numbers) not in (3, 6):
            continue
        for what, (used, soft, hard) in zip(
            ("space", "files"), (numbers[:3], numbers[3:] or [0, 0, 0]), strict=True
        ):
            found.append(Quota(where, what, used, hard or soft))
    return found


def judge_quota(quotas: list[Quota]) -> Outcome:
    """Say how much of the tightest quota is used.

    Raises:
        ConfigError: one is used up.
    """
    limited = [quota for quota in quotas if quota.limit]
    if not limited:
        return Outcome("no quota is known for this account here")
    tight = max(limited, key=lambda quota: quota.used / quota.limit)
    told = f"{_amount(tight, tight.used)} of {_amount(tight, tight.limit)} on {tight.where}"
    if tight.used >= tight.limit:
        raise ConfigError(f"The quota is used up ({told}); remove files or ask for more.")
    if tight.used > NEARLY * tight.limit:
        return Outcome(f"the quota is nearly used up ({told}); free some before a run", "warn")
    return Outcome(f"at most {100 * tight.used / tight.limit:.0f} % of a quota is used ({told})")


def _amount(quota: Quota, value: int) -> str:
    return f"{value:,} files" if quota.what == "files" else f"{value / (1 << 20):,.1f} GiB"


def check_quota(wish: Wish) -> Outcome:
    """Ask ``lfs quota`` and ``quota``, where a site has them."""
    user = str(os.getuid())
    commands = [["lfs", "quota", "-q", "-u", user, str(wish.work)], ["quota", "-w"]]
    reports = [_ask(command) for command in commands if shutil.which(command[0])]
    return judge_quota([quota for report in reports for quota in parse_quota(report)])


def _ask(command: list[str]) -> str:
    # Its exit code says nothing: quota's is 1 for a user who is over a limit.
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=QUOTA_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
