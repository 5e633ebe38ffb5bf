"""Is the final answer of a text equal, as mathematics, to the gold?"""

import functools
import logging
import re
from decimal import Decimal
from typing import Any

import sympy
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from nightshard.benchmarks.base import Verdict
from nightshard.benchmarks.judges.text import last_boxed, nothing_said, strip_thinking

# Its one warning says that timeouts are off; the pool sets them.
logging.getLogger("math_verify").setLevel(logging.ERROR)

MAX_ANSWER_CHARACTERS = 2000
"""A longer box is no answer, and the parser's time grows faster than its length."""

TAIL_CHARACTERS = 2000
"""Where there is no box, the answer is looked for in the end of the text only."""

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox|mathbf)\s*\{([^{}]*)\}")
_STYLE = re.compile(r"\\(?:display|text)style\b")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*")
_WORD_ANSWER = re.compile(r"answer\s*(?:is|:)+[\s:*\"'$(\[]*((?:[^\W\d_]+[ '-]*)+)", re.IGNORECASE)
_MIN_WORD = 3


def judge(gold: str, text: str) -> Verdict:
    r"""Judge one answer.

    The final answer is what the last complete, non-empty ``\boxed{}`` holds, outside of any
    thinking; without a box, what math-verify finds in the end of the text. A gold that is a word is
    compared without regard to case, anything else as mathematics.

    Args:
        gold: LaTeX, a number or a word.
        text: the whole answer.
    """
    answer = strip_thinking(text)
    if silent := nothing_said(text, answer):
        return silent
    boxed = last_boxed(answer)
    words = _gold_words(gold)
    if boxed is None:
        return _judge_words_in(words, answer) if words else _judge_text(gold, answer)
    if len(boxed) > MAX_ANSWER_CHARACTERS:
        return Verdict(False, boxed[:MAX_ANSWER_CHARACTERS], "the box is too long for an answer")
    if _squeezed(boxed) == _squeezed(gold):
        return Verdict(True, boxed, "same text as the gold")
    if words:
        same = _normal_words(boxed) == words
        return Verdict(same, boxed, "same word as the gold" if same else "another word")
    return _judge_math(gold, f"\\boxed{{{boxed}}}", boxed, "in the box")


def number_of(text: str) -> tuple[Decimal | None, str | None]:
    """Return the value of the number at the end of a text, and how it is written there."""
    found = _parse(text[-TAIL_CHARACTERS:])
    written = next((item for item in reversed(found) if isinstance(item, str)), None)
    for item in found:
        try:
            # Of x = 7 the right side.
            value = item.rhs if isinstance(item, sympy.Eq) else item
            return Decimal(str(sympy.N(value, 15))), written
        except Exception:  # noqa: BLE001, S112 (a set, a symbol, or whatever sympy raises)
            continue
    return None, written


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _gold_words(gold: str) -> str | None:
    """Return the gold in normal form if it is words and not symbols, else None."""
    bare = _TEXT_COMMAND.sub(r"\1", gold)
    words = _normal_words(gold)
    marked = bare != gold and not re.sub(r"[\s\\!,;]+", "", _TEXT_COMMAND.sub("", gold))
    if not _WORDS.fullmatch(words):
        return None
    # Without \text, short runs of letters are symbols: p - q, xy.
    long_enough = all(len(part) >= _MIN_WORD for part in re.split(r"[ '-]", words))
    return words if marked or long_enough or words in {"yes", "no"} else None


def _normal_words(text: str) -> str:
    bare = _TEXT_COMMAND.sub(r"\1", _STYLE.sub("", text)).strip("$()[]{}*\"' .,;:!\n\t")
    bare = re.sub(r"^(?:the|an?|on)\s+", "", bare.casefold())
    return re.sub(r"\s+", " ", bare)


def _judge_words_in(words: str, answer: str) -> Verdict:
    tail = _TEXT_COMMAND.sub(r"\1", answer[-TAIL_CHARACTERS:])
    found = [match.group(1) for match in _WORD_ANSWER.finditer(tail)]
    whole = _normal_words(answer) if len(answer) <= MAX_ANSWER_CHARACTERS else ""
    if whole == words:
        return Verdict(True, words, "the text is the gold's word")
    if not found:
        return Verdict(False, None, "no box and no final answer found")
    said = _normal_words(found[-1])
    same = bool(re.match(rf"{re.escape(words)}\b", said))
    said = words if same else said.split(" ")[0]
    return Verdict(same, said, "word in the text" if same else "another word in the text")


def _judge_text(gold: str, answer: str) -> Verdict:
    return _judge_math(gold, answer[-TAIL_CHARACTERS:], None, "in the text")


def _judge_math(gold: str, answer: str, extracted: str | None, where: str) -> Verdict:
    expected = _parse_gold(gold)
    found = _parse(answer)
    if extracted is None:
        extracted = next((item for item in reversed(found) if isinstance(item, str)), None)
    if not found:
        return Verdict(False, extracted, f"no mathematics {where}")
    try:
        equal = bool(verify(list(expected), found, timeout_seconds=None))
    except Exception as error:  # noqa: BLE001 (sympy may raise anything on what a model wrote)
        return Verdict(False, extracted, f"could not be compared ({type(error).__name__})")
    return Verdict(equal, extracted, f"{'equal' if equal else 'not equal'} to the gold, {where}")


def _parse(text: str) -> list[Any]:
    try:
        return list(
            parse(text, [LatexExtractionConfig(), ExprExtractionConfig()], parsing_timeout=None)
        )
    except Exception:  # noqa: BLE001 (the parser may raise anything on what a model wrote)
        return []


@functools.lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> tuple[Any, ...]:
    return tuple(_parse(f"\\boxed{{{gold}}}"))
