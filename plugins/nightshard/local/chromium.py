"""A browser for the tests and for the pictures of the docs: the installed one, or one unpacked."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from nightshard.core.errors import UserError
from nightshard.local.debian import PackageFolder, check_platform
from nightshard.local.processes import locked

QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
"""Options with which it asks nobody but the pages; root cannot have Chromium's own sandbox."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser that can be started.

    Attributes:
        executable: its program.
        environment: of its process.
    """

    executable: Path
    environment: dict[str, str]


def find_chromium(folder: Path) -> Chromium:
    """Find Chromium, or fetch Debian's package into a folder; nothing is installed.

    Raises:
        UserError: it cannot be had here.
    """
    for name in ("chromium", "chromium-browser"):
        if found := shutil.which(name):
            return Chromium(Path(found), dict(os.environ))
    check_platform()
    packages = PackageFolder(folder)
    program = packages.root / "usr/lib/chromium/chromium"
    if not program.exists():
        with locked(folder / "lock"):
            if not program.exists():
                packages.fetch(["chromium"], "apt-get install chromium")
    if not program.exists():
        raise UserError(f"The package chromium holds no {program.name}; install Chromium.")
    libraries = [packages.libraries, packages.libraries / "pulseaudio", program.parent]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    fonts = packages.root / "etc/fonts"
    if fonts.is_dir() and not Path("/etc/fonts").is_dir():
        environment["FONTCONFIG_PATH"] = str(fonts)
    return Chromium(program, environment)
