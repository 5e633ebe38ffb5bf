"""A model's answer on a page: formulas and code are set, nothing in it is taken for markup."""

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evaluated import HOSTILE

from nightshard.web.formatted import MAX_FORMULA, formatted, visible

pytestmark = pytest.mark.unit

MATHML = frozenset(
    (
        *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub"),
        *("msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mpadded"),
        *("mphantom", "mmultiscripts", "mprescripts", "none", "menclose", "mstyle", "merror", "ms"),
    )
)

MARKS = (
    *("$", "$$", "\\(", "\\)", "\\[", "\\]", "```", "```python\n", "\n", "\\frac{", "}", "{"),
    *("<script>", "<img src=x onerror=y>", "\\href{javascript:x}", "\\text{<b>}", "\x00", "&lt;"),
    *("\u202e", "x^2", " and ", "\\begin{matrix}", "\\unicode{60}", "\\color{red}", "]]>", "<!--"),
)
PIECES = st.lists(st.sampled_from(MARKS) | st.text(max_size=8), max_size=25).map("".join)


class Elements(HTMLParser):
    """Collects what a browser would make of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.found.append(("comment", {}))


@given(PIECES)
def test_whatever_a_model_writes_only_formulas_and_coloured_code_become_elements(text: str) -> None:
    for tag, attributes in Elements(str(formatted(text))).found:
        if tag in ("code", "span"):
            assert set(attributes) <= {"class"}
        else:
            assert tag in MATHML
            assert not any(
                name.startswith("on") or name in ("href", "style", "src", "class")
                for name in attributes
            )


@given(st.text(alphabet=st.characters(blacklist_characters="$\\`"), max_size=200))
def test_plain_text_is_shown_letter_by_letter(text: str) -> None:
    assert html.unescape(str(formatted(text))) == html.unescape(html.escape(visible(text)))


@given(st.text(max_size=100))
def test_nothing_that_hides_or_reorders_is_left(text: str) -> None:
    assert not re.search("[\x00-\x08\x0e-\x1f\x7f\u200e\u202a-\u202e\u2066-\u2069]", visible(text))


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("$x^2$", "<msup>"),
        ("\\(\\frac{1}{2}\\)", "<mfrac>"),
        ("\\[\\sqrt 2\\]", 'display="block"'),
        ("$$a_1$$", "<msub>"),
        ("```python\ndef f(): pass\n```", 'class="h-k"'),
        ("```\nno language\n```", "<code class=block>no language</code>"),
        ("```python\nx = 1", '<span class="h-n">'),
    ],
)
def test_formulas_and_code_are_set(text: str, has: str) -> None:
    assert has in formatted(text)


@pytest.mark.parametrize("text", ["It costs $5 and $6.", "a $ b $ c", "$", "\\(", "\\$x$"])
def test_what_is_no_formula_stays_text(text: str) -> None:
    assert "<math" not in formatted(text)
    assert html.unescape(str(formatted(text))) == text


def test_a_formula_that_cannot_be_set_is_shown_as_it_was_written() -> None:
    long = f"\\({'x' * (MAX_FORMULA + 1)}\\)"
    deep = f"\\({'{' * 900}{'}' * 900}\\)"
    for text in (long, deep, "$\\frac{$", "$\\begin{matrix}1$"):
        assert html.unescape(str(formatted(text))) == text


def test_a_hostile_answer_shows_as_what_it_says() -> None:
    shown = str(formatted(HOSTILE))
    assert "<script" not in shown
    assert "<img" not in shown
    assert "**bold** [link](javascript:alert(1)) ⟨U+001B⟩[31m" in shown
    assert "⟨U+202E⟩gnp.exe ⟨U+0000⟩ end" in shown
    assert shown.count("<math") == 2


@pytest.mark.parametrize(
    "made",
    [
        "<math><script>alert(1)</script></math>",
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><annotation-xml><a/></annotation-xml></math>',
        '<math><mi xmlns="http://www.w3.org/1999/xhtml">x</mi></math>',
    ],
)
def test_whatever_the_library_makes_of_a_formula_only_known_elements_are_shown(
    made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latex2mathml.converter.convert", lambda *_, **__: made)
    assert str(formatted("$x$")) == "$x$"


def test_a_formulas_attributes_can_neither_lead_elsewhere_nor_act(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = '<math display="block" onclick="x"><mi href="javascript:x" style="y">x</mi></math>'
    monkeypatch.setattr("latex2mathml.converter.convert", lambda *_, **__: made)
    assert "<mi>x</mi>" in formatted("$$x$$")
    assert "onclick" not in formatted("$$x$$")
