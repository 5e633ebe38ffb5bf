"""Answers whose truth is known, because they are made from the gold."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """One way to answer.

    Attributes:
        name: what it tries.
        text: makes the answer of the gold and of a value that is wrong.
        right: whether a careful reader takes it for right.
    """

    name: str
    text: Callable[[str, str], str]
    right: bool


MATH = (
    Form("a box", lambda gold, _: f"We get \\boxed{{{gold}}}.", True),
    Form("a box in mathematics", lambda gold, _: f"Hence\n$$\\boxed{{{gold}}}$$", True),
    Form("spaces in the box", lambda gold, _: f"So $\\boxed{{ {gold} }}$", True),
    Form("another style of box", lambda gold, _: f"So $\\fbox{{{gold}}}$.", True),
    Form("a sentence, no box", lambda gold, _: f"The final answer is ${gold}$.", True),
    Form("words after the box", lambda gold, _: f"\\boxed{{{gold}}} is what was asked.", True),
    Form("corrects itself", lambda gold, o: f"\\boxed{{{o}}}? No: \\boxed{{{gold}}}", True),
    Form(
        "thinks first",
        lambda gold, o: f"<think>Is it \\boxed{{{o}}}? No.</think>It is \\boxed{{{gold}}}.",
        True,
    ),
    Form("German", lambda gold, _: f"Also lautet die Antwort $\\boxed{{{gold}}}$.", True),
    Form("Chinese", lambda gold, _: f"因此答案是 $\\boxed{{{gold}}}$。", True),
    Form("bold", lambda gold, _: f"**Answer:** $\\boxed{{{gold}}}$", True),
    Form("another value", lambda _, o: f"We get \\boxed{{{o}}}.", False),
    Form("another value, no box", lambda _, o: f"The final answer is ${o}$.", False),
    Form(
        "right before, wrong at the end", lambda g, o: f"\\boxed{{{g}}}, or \\boxed{{{o}}}", False
    ),
    Form("right in the text, wrong in the box", lambda g, o: f"${g}$ is \\boxed{{{o}}}", False),
    Form(
        "right while thinking only",
        lambda gold, o: f"<think>\\boxed{{{gold}}}</think>It is \\boxed{{{o}}}.",
        False,
    ),
    Form("never ends thinking", lambda gold, _: f"<think>Maybe \\boxed{{{gold}}}, but", False),
    Form("cut off in the box", lambda *_: "The answer is \\boxed{", False),
    Form("empty", lambda *_: "", False),
    Form("refuses", lambda *_: "I cannot solve this problem.", False),
)

CHOICE = (
    Form("a sentence with brackets", lambda g, _: f"The answer is ({g}).", True),
    Form("thinks first", lambda g, o: f"<think>({o})?</think>The answer is ({g}).", True),
    Form("weighs another", lambda g, o: f"({o}) looks right. But the answer is ({g}).", True),
    Form("Chinese around", lambda g, _: f"因此。The answer is ({g}).", True),
    Form("another option", lambda _, o: f"The answer is ({o}).", False),
    Form("changes to a wrong one", lambda g, o: f"Not ({g}). The answer is ({o}).", False),
    Form("empty", lambda *_: "", False),
    Form("refuses", lambda *_: "I cannot decide.", False),
    Form("an article", lambda *_: "The answer is a matter of taste.", False),
)

CHOICE_IN_A_BOX = (
    Form("a box", lambda g, _: f"So it is $\\boxed{{{g}}}$.", True),
    Form("text in the box", lambda g, _: f"So it is $\\boxed{{\\text{{{g}}}}}$.", True),
    Form("brackets in the box", lambda g, _: f"So it is $\\boxed{{({g})}}$.", True),
    Form("corrects itself", lambda g, o: f"$\\boxed{{{o}}}$? No: $\\boxed{{{g}}}$", True),
    Form("another option", lambda _, o: f"So it is $\\boxed{{{o}}}$.", False),
    Form("right before the box only", lambda g, o: f"({g})? No: $\\boxed{{{o}}}$", False),
    Form("cut off in the box", lambda *_: "So it is $\\boxed{", False),
    Form("empty", lambda *_: "", False),
)

WORD_PROBLEM = (
    Form("a sentence", lambda gold, _: f"The answer is {gold}.", True),
    Form("a box", lambda gold, _: f"We get $\\boxed{{{gold}}}$", True),
    Form("dollars", lambda gold, _: f"She pays ${gold}", True),
    Form("a number before", lambda gold, o: f"After {o} days she has {gold}", True),
    Form("thinks first", lambda g, o: f"<think>{o}</think>The answer is {g}.", True),
    Form("another number", lambda _, o: f"The answer is {o}.", False),
    Form("ends with another", lambda gold, o: f"Not {gold} but {o}.", False),
    Form("empty", lambda *_: "", False),
    Form("refuses", lambda *_: "I cannot solve this problem.", False),
)
