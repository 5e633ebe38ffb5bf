"""The commands that README and docs show, one line each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nightshard.core.settings import PROJECT_ROOT

_BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_OPTIONAL = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        page: where it stands, relative to the project.
        line: as it is written, on one line and without a comment.
    """

    page: str
    line: str

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def pages() -> list[Path]:
    """Return every page with commands."""
    docs = sorted((PROJECT_ROOT / "docs").rglob("*.md"))
    return [PROJECT_ROOT / "README.md", PROJECT_ROOT / "CONTRIBUTING.md", *docs]


def commands() -> Iterator[Command]:
    """Yield the commands of all pages; what stands in brackets is taken as given.

    Some pages name our own programs by their folder, others do not.
    """
    for page in pages():
        name = page.relative_to(PROJECT_ROOT).as_posix()
        for block in _BLOCK.findall(page.read_text("utf-8")):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                bare = _OPTIONAL.sub(r"\1", re.sub(r"\s+#.*", "", line)).strip()
                if bare:
                    yield Command(name, bare.removeprefix(".venv/bin/"))
