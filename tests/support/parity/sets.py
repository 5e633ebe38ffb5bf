"""The fixed sets of answers, and what two judges say of them."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.parity import references
from support.parity.forms import CHOICE, CHOICE_IN_A_BOX, MATH, WORD_PROBLEM, Form
from support.parity.programs import PROGRAMS, Task

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.code import PRELUDE
from nightshard.benchmarks.judges import code
from nightshard.benchmarks.judges.choice import judge as judge_choice
from nightshard.benchmarks.judges.code import CodeTest
from nightshard.benchmarks.judges.math import judge as judge_math

EXPLAINED = {
    "open(0)": "its imports put the real `open` before the one that it sets up to give the input, "
    "so a program that reads `open(0)` finds nothing; run by itself, the program is right",
}
"""Why a reference says otherwise, by a part of the answer."""

UNFIT = {"367": "its tests use an object that only its own solution makes, in any harness"}
"""Problems whose reference solution fails, in ours and in the reference."""

__all__ = ["PROGRAMS", "Task"]

Judge = Callable[[str, str], bool]

NO_FBOX = ("another style of box",)
LETTER_ALONE = ("text in the box", "brackets in the box")


@dataclass(frozen=True)
class Parity:
    """What came of one set.

    Attributes:
        benchmark: whose judge is meant.
        reference: the other judge.
        answers: how many both judged.
        disagreements: form or problem, answer, our verdict.
        mistakes: answers that we judge otherwise than they were made.
        left_out: forms that the reference does not know.
    """

    benchmark: str
    reference: str
    answers: int
    disagreements: tuple[tuple[str, str, float], ...]
    mistakes: tuple[tuple[str, str, float], ...]
    left_out: tuple[str, ...] = ()

    @property
    def agreement(self) -> float:
        """Share of the answers on which both agree."""
        return 1 - len(self.disagreements) / self.answers


@dataclass
class _Tally:
    answers: int = 0
    disagreements: list[tuple[str, str, float]] = field(default_factory=list)
    mistakes: list[tuple[str, str, float]] = field(default_factory=list)

    def count(self, what: str, text: str, *, ours: float, theirs: float, right: float) -> None:
        self.answers += 1
        if ours != theirs:
            self.disagreements.append((what, text, ours))
        if ours != right:
            self.mistakes.append((what, text, ours))

    def parity(self, benchmark: str, reference: str, left_out: tuple[str, ...] = ()) -> Parity:
        return Parity(
            benchmark,
            reference,
            self.answers,
            tuple(self.disagreements),
            tuple(self.mistakes),
            left_out,
        )


def by_forms(
    names: tuple[str, str],
    golds: Sequence[str],
    forms: Sequence[Form],
    judges: tuple[Judge, Judge],
    left_out: tuple[str, ...] = (),
) -> Parity:
    """Judge each gold in each form.

    Args:
        names: of the benchmark and the reference.
        golds: right answers; a wrong one is another of them.
        forms: how answers are made.
        judges: ours and the reference.
        left_out: names of forms that the reference does not know; only ours judges them.
    """
    ours, theirs = judges
    tally = _Tally()
    for at, gold in enumerate(golds):
        turned = [*golds[at + 1 :], *golds[:at]]
        other = next(one for one in turned if not ours(gold, f"\\boxed{{{one}}}"))
        for form in forms:
            text = form.text(gold, other)
            verdict = ours(gold, text)
            said = verdict if form.name in left_out else theirs(gold, text)
            tally.count(form.name, text, ours=verdict, theirs=said, right=form.right)
    return tally.parity(*names, left_out)


def math(gold: str, text: str) -> bool:
    """Judge as our mathematics benchmarks do."""
    return judge_math(gold, text).correct


def choice(gold: str, text: str) -> bool:
    """Judge as our multiple-choice benchmarks do."""
    return judge_choice(gold, text).correct


def mathematics(folder: Path, every: int = 1) -> list[Parity]:
    """Compare on real golds.

    Args:
        folder: holds the questions of the four competitions.
        every: only each so many-th problem.
    """
    found = []
    for name in ("MATH500", "AIME24", "AIME25", "AMC23"):
        golds = [one.gold for one in registry.get(name).load(str(folder / f"{name.lower()}.jsonl"))]
        names = (name, "lm-eval's last box, compared by math-verify")
        chosen = golds[::every]
        found.append(by_forms(names, chosen, MATH, (math, references.math), NO_FBOX))
        if name.startswith("AIME"):
            names = (name, "lm-eval aime24")
            found.append(by_forms(names, chosen, MATH, (math, references.aime), NO_FBOX))
    return found


def others() -> list[Parity]:
    """Compare where golds can be made up."""
    numbers = [str(number) for number in (*range(2, 60, 3), 540, 1200, 70000, 125000)]
    names = ("GSM8K", "lm-eval gsm8k, flexible-extract")
    found = [by_forms(names, numbers, WORD_PROBLEM, (math, references.gsm8k))]
    names = ("GPQADiamond", "lm-eval gpqa, flexible-extract")
    found.append(by_forms(names, "ABCD", CHOICE, (choice, references.gpqa)))
    names = ("GPQADiamond", "lm-eval's last box, compared as a string")
    found.append(by_forms(names, "ABCD", CHOICE_IN_A_BOX, (choice, references.aime), LETTER_ALONE))
    names = ("MMLUPro", "lm-eval mmlu_pro")
    found.append(by_forms(names, "ABCDEFGHIJ", CHOICE, (choice, references.mmlu_pro)))
    return found


def live_code_bench(file: Path) -> Parity:
    """Compare programs with LiveCodeBench's own harness, see :mod:`references`."""
    jobs = [
        {
            "code": program,
            "name": task.name,
            "inputs": [given for given, _ in task.tests],
            "outputs": [expected for _, expected in task.tests],
        }
        for task, program, _ in PROGRAMS
    ]
    tally = _Tally()
    official = references.live_code_bench(file, jobs)
    for (task, program, right), theirs in zip(PROGRAMS, official, strict=True):
        ours = passes(task.name, task.tests, program)
        tally.count("a program", program, ours=ours, theirs=theirs, right=right)
    return tally.parity("LiveCodeBench", "its own testing_util.py")


def passes(name: str | None, tests: Sequence[tuple[str, str]], program: str) -> bool:
    """Judge a program as our LiveCodeBench does."""
    function = None if name is None else f"Solution.{name}"
    made = [CodeTest(*test) for test in tests]
    return code.judge(made, function, f"```python\n{program}\n```", prelude=PRELUDE).correct


def jee_bench(file: Path) -> Parity:
    """Compare every choice of options, and numbers near and far, with the authors' own score."""
    letters = [
        "".join(chosen) for size in range(1, 5) for chosen in itertools.combinations("ABCD", size)
    ]
    numbers = [f"{value / 1000:g}" for value in range(-40, 41, 3)]
    pairs = [("MCQ(multiple)", gold, said) for gold in letters for said in letters]
    pairs += [("MCQ", gold, said) for gold in "ABCD" for said in "ABCD"]
    pairs += [("Numeric", gold, said) for gold in ("0", "0.02", "-1.5") for said in numbers]
    pairs += [("Integer", str(gold), str(said)) for gold in range(5) for said in range(5)]
    score = references.jee_bench(file)
    tally = _Tally()
    for kind, gold, said in pairs:
        problem = Problem("0", "", json.dumps({"type": kind, "gold": gold}))
        verdict = registry.get("JEEBench").judge(problem, f"So $\\boxed{{{said}}}$.")
        ours = float(verdict.correct) if verdict.credit is None else verdict.credit
        theirs = score(gold, said, kind)
        tally.count(kind, f"{said} for {gold}", ours=ours, theirs=theirs, right=theirs)
    return tally.parity("JEEBench", "its authors' compute_score")


def functions(name: str, file: Path) -> Parity:
    """Compare reference solutions, and functions that do nothing, with a plain interpreter."""
    benchmark = registry.get(name)
    tally = _Tally()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for problem, row in zip(benchmark.load(str(file)), rows, strict=True):
        gold = json.loads(problem.gold)
        solution = row["code"] if "code" in row else row["prompt"] + row["canonical_solution"]
        empty = f"def {gold['name']}(*given): return None"
        for program, right in ((solution.replace("\r", ""), True), (empty, False)):
            ours = benchmark.judge(problem, f"```python\n{program}\n```").correct
            whole = f"{gold['given']}\n{program}\ncandidate = {gold['name']}"
            theirs = references.plain_exec(whole, gold["exam"])
            tally.count(problem.problem_id, program, ours=ours, theirs=theirs, right=right)
    return tally.parity(name, "program and tests in one plain interpreter")
