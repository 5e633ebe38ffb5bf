"""An answer in sections, so that a cut line is noticed and no file's content passes for a section.

Each section is begun by a line with a nonce, and the answer ends with an empty section ``end``; the
exit status, which a site's shell may change, need not be trusted.
"""

import shlex
from collections.abc import Iterator


def section_function(nonce: str) -> str:
    """Return the shell function ``s TITLE`` that begins a section."""
    return f"s() {{ printf '\\n@%s %s\\n' {shlex.quote(nonce)} \"$1\"; }}"


def split_sections(text: str, nonce: str) -> Iterator[tuple[str, str]]:
    """Yield title and body of each section; one whose first line was cut is left out."""
    for part in text.split(f"\n@{nonce} ")[1:]:
        title, newline, body = part.partition("\n")
        if newline:
            yield title, body


def read_files(body: str) -> dict[str, str]:
    """Read what ``grep -as '' /dev/null FILE…`` prints: the content of each file by its path."""
    files: dict[str, list[str]] = {}
    for line in body.split("\n"):
        path, colon, content = line.partition(":")
        if colon:
            files.setdefault(path, []).append(content)
    return {path: "\n".join(lines) for path, lines in files.items()}
