"""Which wheels of a lock belong into a bundle, judged for the nodes and not for this machine."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from nightshard.core.errors import UserError

PYTHONS = ("3.11", "3.12", "3.13")
"""Those of the worker's ``requires-python``."""

MACHINES = ("x86_64", "aarch64")
OLDEST_GLIBC = 5
_LEGACY = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}
"""Minor version of glibc 2 behind the older names (PEP 600)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the bundle will be installed.

    Attributes:
        python: version, for example ``3.11``.
        glibc: version of the C library, for example ``2.34``.
        machine: ``x86_64`` or ``aarch64``.
    """

    python: str
    glibc: str
    machine: str

    def __post_init__(self) -> None:
        """Refuse what no node has.

        Raises:
            UserError: it is no version of glibc 2, or no Python or machine that the worker runs on.
        """
        if not re.fullmatch(r"2\.\d{1,2}", self.glibc):
            raise UserError(f"{self.glibc!r} is no version of glibc; give one such as 2.34.")
        if self.machine not in MACHINES:
            raise UserError(
                f"There are no wheels for the machine {self.machine!r}; choose x86_64 or aarch64."
            )
        if self.python not in PYTHONS:
            raise UserError(
                f"The worker does not run on Python {self.python!r}; choose {', '.join(PYTHONS)}."
            )

    def wheel_tags(self) -> tuple[str, ...]:
        """Return the platform tags of wheels that such a node takes, newest first (PEP 600)."""
        minor = int(self.glibc.removeprefix("2."))
        newest = [f"manylinux_2_{at}" for at in range(minor, OLDEST_GLIBC - 1, -1)]
        legacy = [name for name, oldest in reversed(_LEGACY.items()) if oldest <= minor]
        return tuple(f"{name}_{self.machine}" for name in (*newest, *legacy))

    def markers(self) -> dict[str, str]:
        """Return the values of environment markers on such a node (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True, slots=True)
class Pin:
    """One package in one version.

    Attributes:
        name: as PyPI writes it, lower case with dashes.
        version: the exact version.
        hashes: digests of the files that may be taken, ``sha256:…``; empty for any.
    """

    name: str
    version: str
    hashes: tuple[str, ...]

    def line(self) -> str:
        """Return the line of a requirements file."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={h}" for h in self.hashes)])


def read_pins(text: str, where: str, target: Target, *, hashed: bool) -> list[Pin]:
    """Return those pins of a lock that its markers choose for a node.

    Args:
        text: a requirements file in which every package is pinned.
        where: its name, for complaints.
        target: the nodes.
        hashed: whether every pin must have digests.

    Raises:
        UserError: a line has no exact version, no digest, or is no requirement.
    """
    pins = []
    for line in re.sub(r"\\\s*\n", " ", text).splitlines():
        stripped = re.sub(r"(^|\s)#.*", "", line).strip()
        if not stripped:
            continue
        words, *hashes = re.split(r"\s+--hash[= ]", stripped)
        requirement = _requirement(words, where)
        if requirement.marker is not None and not requirement.marker.evaluate(target.markers()):
            continue
        version = _exact(requirement)
        if version is None:
            raise UserError(
                f"{where} does not pin {requirement.name} to one version; write it with "
                "`uv pip compile --universal --generate-hashes`."
            )
        if hashed and not hashes:
            raise UserError(
                f"{where} has no hash for {requirement.name}; write it with "
                "`uv pip compile --universal --generate-hashes`."
            )
        digests = tuple(digest.strip() for digest in hashes)
        pins.append(Pin(canonicalize_name(requirement.name), version, digests))
    if not pins:
        raise UserError(f"{where} names no package; name another --requirements.")
    return pins


def _requirement(words: str, where: str) -> Requirement:
    try:
        return Requirement(words)
    except InvalidRequirement:
        raise UserError(
            f"{where} has the line {words[:60]!r}, which a bundle cannot follow; give a lock of "
            "packages with exact versions only."
        ) from None


def _exact(requirement: Requirement) -> str | None:
    specifiers = list(requirement.specifier)
    if requirement.url or len(specifiers) != 1 or specifiers[0].operator != "==":
        return None
    version = specifiers[0].version
    return None if version.endswith(".*") else version


def match_wheels(pins: Sequence[Pin], digests: Mapping[str, str]) -> list[Pin]:
    """Pin each package to the one wheel that was fetched for it.

    Args:
        pins: what was asked for.
        digests: SHA-256 in hex of each wheel, by file name.

    Returns:
        The pins with the version and the digest of the wheel; a version such as ``2.13.0+cpu`` is
        one of ``2.13.0``.

    Raises:
        UserError: there is no wheel of a package.
    """
    wheels = {}
    for file, digest in digests.items():
        name, version, _, _ = parse_wheel_filename(file)
        wheels[name, version.public] = Pin(name, str(version), (f"sha256:{digest}",))
    found = []
    for pin in pins:
        key = (canonicalize_name(pin.name), Version(pin.version).public)
        if key not in wheels:
            raise UserError(f"pip fetched no wheel of {pin.name} {pin.version}; start again.")
        found.append(wheels[key])
    return found


def oldest_glibc(wheels: Iterable[str]) -> str:
    """Return the oldest glibc that all of these wheels run on, from their names alone."""
    return f"2.{max((_glibc(name) for name in wheels), default=OLDEST_GLIBC)}"


def _glibc(wheel: str) -> int:
    return min(_minor(tag.platform) for tag in parse_wheel_filename(wheel)[3])


def _minor(platform: str) -> int:
    if match := re.match(r"manylinux_2_(\d+)_", platform):
        return int(match[1])
    return _LEGACY.get(platform.partition("_")[0], OLDEST_GLIBC)
