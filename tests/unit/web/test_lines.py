"""A log is cut between lines, its bars collapse, and nothing in it becomes markup."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.web.lines import OPEN_LINE, cut, plain, settle, to_html

pytestmark = pytest.mark.unit

PARTS = [b"a line\n", b"\xc3\xa9\n", b"12%\r", b"\n", b"\xff\n", b"\r\n"]
LOG = st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join)


@given(LOG, st.sampled_from([b"", b"no end", b"99%\r"]), st.integers(16, 64))
def test_reading_on_piece_by_piece_gives_every_whole_line_once(
    lines: bytes, end: bytes, limit: int
) -> None:
    log = lines + end
    offset, seen, rest = 0, b"", b""
    for _ in range(2 * len(log) + 2):
        data = log[offset : offset + limit]
        piece = cut(data, full=len(data) == limit)
        seen += piece.lines
        offset, rest = offset + piece.consumed, piece.rest
        if not piece.consumed:
            break
    shown = settle((seen + rest).decode(errors="replace"))
    assert shown.replace("\n", "") == settle(log.decode(errors="replace")).replace("\n", "")


@given(st.text(min_size=1, alphabet="aé漢😀"), st.integers(4, 9))
def test_a_line_longer_than_an_answer_comes_in_parts_of_whole_letters(
    line: str, limit: int
) -> None:
    log, offset, parts = line.encode(), 0, []
    while offset < len(log):
        data = log[offset : offset + limit]
        piece = cut(data, full=len(data) == limit)
        if not piece.consumed:
            parts.append(piece.rest.decode())
            break
        parts.append(piece.lines.decode())
        offset += piece.consumed
    assert "".join(parts) == line


def test_a_bar_that_never_ends_its_line_does_not_stop_following() -> None:
    bar = b"".join(b"%d of 9999\r" % one for one in range(5000))
    assert len(bar) > OPEN_LINE
    piece = cut(bar, full=False)
    assert piece.consumed > len(bar) - 50
    assert piece.rest == b"4999 of 9999\r"


def test_a_bar_shows_its_last_state_only() -> None:
    assert settle("load 1%\rload 50%\rload 100%\nready\n") == "load 100%\nready\n"


def test_equal_lines_without_a_bar_are_all_kept() -> None:
    assert settle("a\na\n\n\nb\n") == "a\na\n\n\nb\n"


def test_colours_become_classes_and_end_where_they_end() -> None:
    shown = to_html("\x1b[1;31mERROR\x1b[0m plain \x1b[38;5;208mrich\x1b[39m \x1b]0;title\x07end")
    assert shown == '<span class="bold c-red">ERROR</span> plain rich end'


def test_a_terminal_gets_neither_colours_nor_control_characters() -> None:
    assert plain("\x1b[32mok\x1b[0m\x1b[2K\x1b]52;c;ZXZpbA==\x07\x08\x9b31m!") == "ok31m!"


@given(st.text(alphabet=st.sampled_from("<>&\"'\x1b[31m;0\r\nscript/")))
def test_what_a_model_wrote_never_becomes_markup(text: str) -> None:
    shown = to_html(text)
    left = re.sub(r'<span class="[a-z -]+">|</span>', "", shown)
    assert "<" not in left
    assert html.unescape(left) == plain(text)
