"""Which option does a text choose?"""

import re

from nightshard.benchmarks.base import Verdict
from nightshard.benchmarks.judges.text import last_boxed, nothing_said, strip_thinking

TAIL_CHARACTERS = 2000
"""Where there is no box, the answer is looked for in the end of the text only."""

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|bf|rm)\b")
_MARKS = "[\\s{}$*_`\"'\u201c\u2018:=]*"

# In a box even a small letter is the option.
_IN_A_BOX = re.compile(rf"{_MARKS}(?:[Oo]ption{_MARKS})?[(\[]?([A-Ja-j])(?![A-Za-z])")

# In running text a small letter counts in brackets only: "the answer is a matter of taste". Of "A"
# too more is asked, since "Answer: A spin-orbit coupling" has the article.
_SAID = re.compile(
    rf"(?:answer|choice|option)(?:\s+is|\s+would\s+be|\s+should\s+be)?{_MARKS}"
    rf"(?:(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:answer|choice|option){_MARKS}"
    rf"(?:is)?{_MARKS})?"
    r"(?:[(\[]([A-Ja-j])[)\]]|([B-J])(?![A-Za-z'\u2019])|(A)(?![A-Za-z'\u2019])"
    r"(?!\s+(?!because|since|as|due|for|which|and|with|by)[a-z]))",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[A-J]+")
_BETWEEN_LETTERS = re.compile(r"[\s,;&{}$()\[\].*\\]|\band\b", re.IGNORECASE)
_ALONE = re.compile(rf"{_MARKS}[(\[]?([A-J])[)\].:]*{_MARKS}")
_ALONE_ON_A_LINE = re.compile(rf"^{_MARKS}[(\[]?([A-J])[)\].]*{_MARKS}$", re.MULTILINE)


def judge(gold: str, text: str) -> Verdict:
    r"""Judge one answer.

    The choice is the letter in the last complete, non-empty ``\boxed{}`` outside of any thinking;
    without a box, the last letter that the text names as its answer; else a text, or its last line,
    that is a letter alone.

    Args:
        gold: the right letter.
        text: the whole answer.
    """
    answer = strip_thinking(text)
    if silent := nothing_said(text, answer):
        return silent
    boxed = last_boxed(answer)
    if boxed is not None:
        found = _IN_A_BOX.match(_TEXT_COMMAND.sub("", boxed))
        if found is None:
            return Verdict(False, boxed, "the box holds no option")
        return _verdict(gold, found[1].upper(), "in the box")
    tail = _TEXT_COMMAND.sub("", answer[-TAIL_CHARACTERS:])
    said = [letter for match in _SAID.finditer(tail) if (letter := _letter(match))]
    if said:
        return _verdict(gold, said[-1], "named as the answer")
    alone = _ALONE.fullmatch(tail) or _last(_ALONE_ON_A_LINE, tail)
    if alone is not None:
        return _verdict(gold, alone[1], "a letter alone")
    return Verdict(False, None, "no box and no option named as the answer")


def judge_several(gold: str, text: str) -> Verdict:
    r"""Judge one answer that may choose several options.

    The choice is every letter in the last complete, non-empty ``\boxed{}`` outside of any thinking;
    without a box, a last line of letters alone. A part of the right options with no wrong one gets
    a quarter for each.

    Args:
        gold: the right letters, such as ``BD``.
        text: the whole answer.
    """
    answer = strip_thinking(text)
    if silent := nothing_said(text, answer):
        return silent
    boxed = last_boxed(answer)
    said = boxed if boxed is not None else answer.strip().rpartition("\n")[2]
    where = "in the box" if boxed is not None else "in the last line"
    bare = _BETWEEN_LETTERS.sub("", _TEXT_COMMAND.sub("", said))
    chosen = "".join(sorted(set(bare.upper())))
    if not _LETTERS.fullmatch(chosen):
        return Verdict(False, boxed, f"no options {where}")
    if set(chosen) == set(gold):
        return Verdict(True, chosen, f"{where}: {chosen}")
    part = set(chosen) < set(gold)
    return Verdict(False, chosen, f"{where}: {chosen}", 0.25 * len(chosen) if part else 0.0)


def _letter(match: re.Match[str]) -> str | None:
    bracketed, other, first = match.groups()
    if bracketed is not None:
        return bracketed.upper()
    # The pattern ignores case for the words around the letter, not for the letter.
    letter: str = other or first
    return letter if letter.isupper() else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 (the last one is wanted)
        pass
    return found


def _verdict(gold: str, letter: str, where: str) -> Verdict:
    return Verdict(letter == gold, letter, f"{where}: {letter}")
