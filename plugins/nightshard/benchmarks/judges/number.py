"""Is the final answer of a text a number close to the gold?"""

from decimal import Decimal, InvalidOperation

from nightshard.benchmarks.base import Verdict
from nightshard.benchmarks.judges import math
from nightshard.benchmarks.judges.text import last_boxed, nothing_said, strip_thinking


def judge(gold: str, text: str, *, tolerance: float) -> Verdict:
    r"""Judge one answer.

    The final answer is what the last complete, non-empty ``\boxed{}`` holds, outside of any
    thinking; without a box, what math-verify finds in the end of the text.

    Args:
        gold: a decimal number.
        text: the whole answer.
        tolerance: by how much the answer may differ.
    """
    answer = strip_thinking(text)
    if silent := nothing_said(text, answer):
        return silent
    boxed = last_boxed(answer)
    where = "in the text" if boxed is None else "in the box"
    value, extracted = math.number_of(answer if boxed is None else f"\\boxed{{{boxed}}}")
    extracted = boxed if boxed is not None else extracted
    if value is None:
        return Verdict(False, extracted, f"no number {where}")
    try:
        near = abs(value - Decimal(gold)) <= Decimal(str(tolerance))
    except InvalidOperation:
        return Verdict(False, extracted, f"no finite number {where}")
    return Verdict(near, extracted, f"{'within' if near else 'not within'} {tolerance:g} of {gold}")
