"""A remote log as a person reads it: cut between lines, bars collapsed, colours as HTML. Pure."""

import codecs
import html
import itertools
import re
from dataclasses import dataclass

OPEN_LINE = 16 * 1024
"""Bytes of an unfinished line above which states of a bar that were overdrawn are given up."""

_ESCAPE = re.compile(
    r"\x1b\[(?P<codes>[0-9;:]*)m"  # colour and weight
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # any other control sequence
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # operating system command: titles, links
    r"|\x1b[ -/]*[0-~]?"  # a short escape
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]"  # other control characters but tab and newline
)
_BASIC = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a log.

    Attributes:
        lines: whole lines, each with its newline.
        rest: the line that is still being written; the next piece begins with it again.
        consumed: bytes that need not be read again.
    """

    lines: bytes
    rest: bytes
    consumed: int


def cut(data: bytes, *, full: bool) -> Piece:
    r"""Cut what was read behind its last whole line.

    A progress bar draws one line for hours without ending it. Of such a line only what follows the
    last carriage return is kept, so that following it never stands still.

    Args:
        data: bytes of the log from some offset on.
        full: as much was read as may be at once, so more may follow.
    """
    end = data.rfind(b"\n") + 1
    lines, rest = data[:end], data[end:]
    consumed = end
    overdrawn = rest.rstrip(b"\r").rfind(b"\r") + 1
    if overdrawn and (len(rest) > OPEN_LINE or (full and not lines)):
        rest = rest[overdrawn:]
        consumed += overdrawn
    if full and not consumed:
        # One line longer than a whole answer: hand it out in parts, none of them inside a letter.
        whole = _letters(rest)
        return Piece(rest[:whole], rest[whole:], whole)
    return Piece(lines, rest, consumed)


def _letters(data: bytes) -> int:
    """Return the length of ``data`` without a UTF-8 letter that is cut off at its end."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(data)
    pending, _ = decoder.getstate()
    return len(data) - len(pending) or len(data)


def settle(text: str) -> str:
    """Collapse each line to what is left on a screen after its carriage returns.

    Neighbouring lines that are then equal are shown once: a bar that was redrawn by newlines too.
    """
    bars = "\r" in text
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    if bars:
        shown = [
            line for line, same in itertools.groupby(shown) for _ in (same if not line else [line])
        ]
    return "\n".join(shown)


def plain(text: str) -> str:
    """Return the text without colours and control characters, for a terminal that is not asked."""
    return _ESCAPE.sub("", settle(text))


def to_html(text: str) -> str:
    """Return the text as safe HTML, its colours as classes ``c-red``, ``bold`` and the like."""
    text = settle(text)
    parts: list[str] = []
    style: tuple[str, ...] = ()
    at = 0
    for match in _ESCAPE.finditer(text):
        parts.append(_span(text[at : match.start()], style))
        at = match.end()
        if match["codes"] is not None:
            style = _restyled(style, match["codes"])
    parts.append(_span(text[at:], style))
    return "".join(parts)


def _span(text: str, style: tuple[str, ...]) -> str:
    escaped = html.escape(text)
    return f'<span class="{" ".join(style)}">{escaped}</span>' if style and text else escaped


def _restyled(style: tuple[str, ...], codes: str) -> tuple[str, ...]:
    numbers = [int(code) if code.isdigit() else 0 for code in re.split("[;:]", codes)]
    chosen = set(style)
    at = 0
    while at < len(numbers):
        number = numbers[at]
        if number in {38, 48}:  # extended colours are dropped with their arguments
            at += 5 if numbers[at + 1 : at + 2] == [2] else 3
            continue
        chosen = _with(chosen, number)
        at += 1
    return tuple(sorted(chosen))


def _with(chosen: set[str], number: int) -> set[str]:
    if number == 0:
        return set()
    if number in {1, 2}:
        return chosen | {"bold" if number == 1 else "dim"}
    if number == 22:  # noqa: PLR2004 (ECMA-48: normal weight)
        return chosen - {"bold", "dim"}
    base = number - 90 if 90 <= number <= 97 else number - 30  # noqa: PLR2004 (ECMA-48: colours)
    if number == 39 or 0 <= base < len(_BASIC):  # noqa: PLR2004
        chosen = {name for name in chosen if not name.startswith("c-")}
        return chosen | {f"c-{_BASIC[base]}"} if number != 39 else chosen  # noqa: PLR2004
    return chosen
