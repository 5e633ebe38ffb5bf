"""What is known of a local Airflow: ``airflow.json`` in its home folder."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class AirflowInfo:
    """A local Airflow, as kept in ``airflow.json`` (readable by its owner only).

    Attributes:
        url: address of the web page and of the REST API.
        username: login.
        password: made anew for each home folder.
        pid: process of the supervisor; 0 before it has begun.
        parts: process of each part, by its name. Each leads a session of its own.
        failures: how many times in a row a part ended soon after its start, by its name.
    """

    url: str
    username: str
    password: str
    pid: int
    parts: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, home: Path) -> "AirflowInfo | None":
        """Read the file; None where there is none."""
        try:
            values = json.loads(info_file(home).read_text())
        except FileNotFoundError:
            return None
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def write(self, home: Path) -> None:
        """Replace the file; who reads it meanwhile gets the old or the new one whole."""
        write_private(info_file(home), asdict(self))


def info_file(home: Path) -> Path:
    """Return where an Airflow's address, login and processes are kept."""
    return home / "airflow.json"


def write_private(file: Path, value: Any) -> None:
    """Write JSON, whole or not at all, that only the owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(json.dumps(value))
    new.replace(file)
