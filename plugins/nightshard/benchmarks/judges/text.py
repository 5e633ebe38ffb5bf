"""What every judge does with a text: leave thinking out, find the last box. Pure."""

import re

from nightshard.benchmarks.base import Verdict

_THINKING = re.compile(r"<(/?)think(?:ing)?>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(\{|(?<=\s)-?\d[\d.,/]*)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_TRAILING = re.compile(r"(?:\\[,;! ]|[\s.,;])+$")


def strip_thinking(text: str) -> str:
    """Return what a text says outside of ``<think>`` … ``</think>``.

    The opening tag may be missing, because chat templates often write it; an unclosed one hides
    everything after it.
    """
    kept = ""
    position = 0
    thinking = False
    for tag in _THINKING.finditer(text):
        if not thinking:
            kept += text[position : tag.start()]
        closing = bool(tag.group(1))
        if closing and not thinking:
            kept = ""
        thinking = not closing
        position = tag.end()
    return kept if thinking else kept + text[position:]


def last_boxed(text: str) -> str | None:
    """Return the content of the last complete, non-empty box; None where there is none."""
    closing = _closing_braces(text)
    for match in reversed(list(_BOX.finditer(text))):
        content = match.group(1)
        if content == "{":
            content = text[match.end() : closing.get(match.end() - 1, match.end())]
        content = _TRAILING.sub("", content.strip().strip("$")).strip()
        if content:
            return content
    return None


def _closing_braces(text: str) -> dict[int, int]:
    """Map each opening brace to its closing one, in one pass: a model may repeat itself a lot."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def nothing_said(text: str, answer: str) -> Verdict | None:
    """Return the verdict on a text that says nothing outside of its thinking, None where it does.

    Args:
        text: the whole answer.
        answer: what :func:`strip_thinking` leaves of it.
    """
    if answer.strip():
        return None
    why = "the text ends while thinking" if text.strip() else "the text is empty"
    return Verdict(False, None, why)
