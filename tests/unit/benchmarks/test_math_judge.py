"""What counts as the final answer, and when it equals the gold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshard.benchmarks.judges.limits import JudgingTimeout, cpu_limit
from nightshard.benchmarks.judges.math import judge
from nightshard.benchmarks.judges.text import last_boxed, strip_thinking

pytestmark = pytest.mark.unit

SAME = [
    ("70", r"\boxed{70}"),
    ("70", r"\boxed{070}"),
    ("1234", r"\boxed{1,234}"),
    (r"\$32,348", r"\boxed{32348}"),
    ("42", r"\boxed{42 \text{ apples}}"),
    ("42", r"\boxed{42 apples}"),
    ("42", r"\boxed{$42$}."),
    ("42", r"\boxed {42,}"),
    ("42", r"$\boxed 42$"),
    ("42", r"\fbox{42}"),
    ("3", r"\boxed{x = 3}"),
    ("0.5", r"\boxed{\frac{1}{2}}"),
    (r"\frac12", r"\boxed{0.5}"),
    (r"10\%", r"\boxed{10\%}"),
    ("106^\\circ", r"\boxed{106}"),
    ("2k+2", r"\boxed{2(k+1)}"),
    ("1,2", r"\boxed{2, 1}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3,\pi/2)}"),
    (r"x \in [-2,7]", r"\boxed{[-2,7]}"),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\boxed{\begin{pmatrix}1&2\end{pmatrix}}"),
    (r"\text{Evelyn}", r"\boxed{Evelyn}"),
    (r"\text{Evelyn}", r"\boxed{\text{evelyn}}"),
    (r"\text{(C)}", r"\boxed{C}"),
    ("Tuesday", r"\boxed{\textbf{TUESDAY.}}"),
    ("no", r"\boxed{No}"),
    ("p - q", r"\boxed{-q+p}"),
    ("p-q", r"\boxed{\displaystyle p - q}"),
    (r"\text{east}", r"\boxed{\displaystyle \text{East}}"),
    ("Tuesday", "The answer is **Tuesday**, since 100 = 14 * 7 + 2."),
    (r"\text{east}", r"The answer is $\text{east}$."),
    ("Fay", "Fay."),
    ("7", "So the final answer is 7."),
    ("7", "7"),
    (r"\frac{1}{3}", r"Hence the answer is $\frac{1}{3}$."),
]

DIFFERENT = [
    ("70", r"\boxed{71}"),
    ("1234", r"\boxed{1.234}"),
    ("12", r"\boxed{21}"),
    (r"\frac{1}{3}", r"\boxed{0.33}"),
    (r"\text{Evelyn}", r"\boxed{Evenly}"),
    ("Tuesday", r"\boxed{not Tuesday}"),
    ("Tuesday", "The answer is not Tuesday."),
    ("Tuesday", "Yesterday was Tuesday"),
    ("7", "I do not know."),
    ("7", ""),
    ("7", r"\boxed{}"),
    ("7", r"\boxed{" + "7" * 3000 + "}"),
]


@pytest.mark.parametrize(("gold", "text"), SAME)
def test_an_equal_answer_is_right(gold: str, text: str) -> None:
    assert judge(gold, text).correct


@pytest.mark.parametrize(("gold", "text"), DIFFERENT)
def test_another_answer_is_wrong_and_says_why(gold: str, text: str) -> None:
    verdict = judge(gold, text)
    assert not verdict.correct
    assert verdict.reason


def test_the_last_box_counts() -> None:
    text = r"First \boxed{1}, no, \boxed{2}. I was told to use \boxed{}."
    assert last_boxed(text) == "2"
    assert judge("2", text).correct
    assert not judge("1", text).correct


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{1} then \boxed{2", "1"),
        ("use the \\boxed format", None),
        (r"\boxed{ }", None),
        ("none", None),
    ],
)
def test_a_box_is_complete_and_balanced(text: str, box: str | None) -> None:
    assert last_boxed(text) == box


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        ("\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        ("<thinking>a</thinking>b<think>c</think>d", "bd"),
        ("before <think> never closed \\boxed{1}", "before "),
        ("plain", "plain"),
    ],
)
def test_thinking_is_no_answer(text: str, rest: str) -> None:
    assert strip_thinking(text) == rest


def test_an_answer_cut_off_while_thinking_is_wrong_for_that_reason() -> None:
    verdict = judge("1", "<think>It may be \\boxed{1}")
    assert (verdict.correct, verdict.reason) == (False, "the text ends while thinking")


FRAGMENTS = r"""
    \boxed{ { } \frac \sqrt [ ] ( ) ^ _ $ $$ , . - + / = % \text{ \left \right 1 23 \pi x y
    \begin{pmatrix} \end{pmatrix} & \\ answer is <think> </think> ∞ é
"""
pieces = st.lists(st.sampled_from([*FRAGMENTS.split(), "\n", "\0"]), max_size=20).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.one_of(pieces, st.text(max_size=60)), st.sampled_from(["7", "\\frac12", "Tuesday", "("]))
def test_no_text_crashes_the_judge(text: str, gold: str) -> None:
    try:
        with cpu_limit(5):
            verdict = judge(gold, text)
            assert judge(gold, text) == verdict
    except JudgingTimeout:
        return
    assert isinstance(verdict.correct, bool)


@settings(max_examples=30, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_whole_numbers_are_equal_only_to_themselves(gold: int, said: int) -> None:
    assert judge(str(gold), f"\\boxed{{{said}}}").correct == (gold == said)
    assert judge(str(gold), f"\\boxed{{{gold:,}}}").correct


def test_the_limit_ends_a_computation_that_swallows_exceptions() -> None:
    def spin() -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: BLE001 (what the limit must get through)
                continue

    with pytest.raises(JudgingTimeout), cpu_limit(0.05):
        spin()
