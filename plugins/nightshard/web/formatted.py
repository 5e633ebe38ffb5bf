"""A model's answer as a person reads it: formulas and code set, everything else as plain text.

Answers are hostile text. Nothing in them is taken for markup: formulas become MathML of which only
harmless elements are kept, code is coloured letter by letter, and the rest is escaped.
"""

import re
from collections.abc import Iterator
from functools import cache
from xml.etree import ElementTree as ET

import latex2mathml.converter
from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MAX_FORMULA = 2_000
"""Characters of a formula above which it is shown as it was written."""

MAX_FORMULAS = 500
"""Formulas of one text that are set; those after them are shown as they were written."""

MAX_CODE = 50_000

_OPENING = re.compile(
    r"^[ \t]*(?P<fence>`{3,})[ \t]*(?P<language>[\w+#.-]{0,20})[^\n`]*\n"
    r"|\\\[|\\\(|\$\$|(?<![\\$\w])\$(?=[^\s$])",
    re.MULTILINE,
)
_CLOSING = {"\\[": "\\]", "\\(": "\\)", "$$": "$$", "$": "$"}
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control characters, and those that reorder or hide what stands beside them."""

_MATHML = "{http://www.w3.org/1998/Math/MathML}"
_ELEMENTS = frozenset(
    (
        *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub"),
        *("msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mpadded"),
        *("mphantom", "mmultiscripts", "mprescripts", "none", "menclose", "mstyle", "merror", "ms"),
    )
)
_ATTRIBUTES = frozenset(
    (
        *("display", "mathvariant", "stretchy", "fence", "form", "accent", "accentunder"),
        *("notation", "linethickness", "columnalign", "rowspacing", "columnspacing", "width"),
        *("displaystyle", "scriptlevel", "lspace", "rspace", "minsize", "maxsize"),
        *("movablelimits", "separator"),
    )
)


def visible(text: str) -> str:
    """Write control characters, and such as reorder text, in a form that shows."""
    return _UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def formatted(text: str) -> Markup:
    """Return HTML in which formulas and fenced code are set, for an element that keeps spaces."""
    return Markup("").join(_pieces(text))


def code_style() -> Markup:
    """Return the style sheet of coloured code, light and dark."""
    return Markup(  # noqa: S704 (made of constants)
        _styles("default") + "@media (prefers-color-scheme: dark) {" + _styles("github-dark") + "}"
    )


def _pieces(text: str) -> Iterator[Markup]:
    shown_to = at = formulas = 0
    while (opening := _OPENING.search(text, at)) is not None:
        piece: Markup | None = None
        after = opening.end()
        if opening["fence"]:
            end, after = _fence_end(text, opening)
            piece = _code(text[opening.end() : end], opening["language"])
        elif formulas < MAX_FORMULAS and (found := _formula_end(text, opening)) is not None:
            formulas += 1
            after = found + len(_CLOSING[opening[0]])
            piece = _formula(text[opening.end() : found], block=opening[0] in ("\\[", "$$"))
        if piece is not None:
            yield escape(visible(text[shown_to : opening.start()]))
            yield piece
            shown_to = at = after
        else:
            at = opening.end()
    yield escape(visible(text[shown_to:]))


def _fence_end(text: str, opening: re.Match[str]) -> tuple[int, int]:
    """Return where fenced code ends, and where the text goes on; an open fence never ends."""
    closing = re.compile(rf"^[ \t]*{opening['fence']}`*[ \t]*$", re.MULTILINE)
    found = closing.search(text, opening.end())
    return (len(text), len(text)) if found is None else (found.start(), found.end())


def _formula_end(text: str, opening: re.Match[str]) -> int | None:
    """Return where a formula ends that begins here, None where none does."""
    begin, closing = opening.end(), _CLOSING[opening[0]]
    end = text.find(closing, begin, begin + MAX_FORMULA)
    if end <= begin:
        return None
    if closing != "$":
        return end
    inside = text[begin:end]
    # A price is no formula: "$5 and $6".
    lone = "\n" in inside or inside[-1].isspace() or text[end + 1 : end + 2].isdigit()
    return None if lone else end


def _code(code: str, language: str) -> Markup:
    lexer = _lexer(language.lower()) if len(code) <= MAX_CODE else None
    plain = visible(code.rstrip("\n"))
    if lexer is None:
        return Markup("<code class=block>{}</code>").format(plain)
    coloured = highlight(plain, lexer, _formatter("default")).rstrip("\n")
    return Markup("<code class=block>{}</code>").format(Markup(coloured))  # noqa: S704


@cache
def _formatter(style: str) -> HtmlFormatter:
    return HtmlFormatter(nowrap=True, classprefix="h-", style=style)


def _styles(style: str) -> str:
    rules = _formatter(style).get_style_defs(".code")
    # Backgrounds, and the rules for line numbers, belong to the page.
    return "\n".join(one for one in rules.splitlines() if one.startswith(".code .h-"))


@cache
def _lexer(language: str) -> object | None:
    try:
        return get_lexer_by_name(language, stripnl=False) if language else None
    except ClassNotFound:
        return None


def _formula(source: str, block: bool) -> Markup | None:
    """Set a formula; None where it cannot be, and is better shown as it was written."""
    if _UNSEEN.search(source):
        return None
    try:
        made = latex2mathml.converter.convert(source, display="block" if block else "inline")
        tree = ET.fromstring(made)  # noqa: S314 (made by the line before, and has no entities)
        if not _clean(tree):
            return None
        tree.set("xmlns", _MATHML.strip("{}"))
        return Markup(ET.tostring(tree, encoding="unicode"))  # noqa: S704 (cleaned, ET escapes it)
    except Exception:  # noqa: BLE001 (a model's LaTeX breaks any parser in its own way)
        return None


def _clean(element: ET.Element) -> bool:
    """Take away attributes that are not known; False where an element is not known either."""
    element.tag = element.tag.removeprefix(_MATHML)
    if element.tag not in _ELEMENTS:
        return False
    for name in list(element.attrib):
        if name not in _ATTRIBUTES:
            del element.attrib[name]
    return all(map(_clean, element))
