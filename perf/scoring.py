"""How fast answers are judged, beside one process that calls the same judges in a loop.

Mathematics, multiple choice and code, each judged three ways in one run: by a plain loop in one
process, by the pool with one process, and by the pool with one process a core. All three begin with
no process, so each figure holds the start of Python and of the scorers. Code runs in the sandbox in
all three.

    make perf NAME=scoring [ARGS=--quick]
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.judges.pool import Judgement, JudgePool, Outcome

CORES = len(os.sched_getaffinity(0))
GOAL = 0.9

GOLDS = (
    *("42", r"\frac{3}{7}", r"2\sqrt{5}", r"\left(3, \frac{\pi}{2}\right)", r"\{1, 2, 5\}"),
    *("x^2 + 3x - 4", "[0, 5)", r"\text{Thursday}", r"90^\circ", "1,234,567"),
)
FORMS = (
    r"So the result is \boxed{{{}}}.",
    "Therefore the answer is ${}$.",
    r"We get \boxed{{7}}, no, \boxed{{{}}}",
)
PROGRAM = "n = int(input())\nprint(sum(i * i for i in range(n)) % 1000003)"


@dataclass
class Kind:
    """One kind of judging.

    Attributes:
        name: for the table.
        work: what is judged.
        seconds: by way of judging, one value a round.
    """

    name: str
    work: Sequence[Judgement]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def rate(self, way: str) -> float:
        """Return answers a second, the median of the rounds."""
        return len(self.work) / statistics.median(self.seconds[way])

    def ratio(self, way: str, cores: int) -> float:
        """Return the rate as a share of ``cores`` loops, the median of the rounds' own ratios."""
        pairs = zip(self.seconds["loop"], self.seconds[way], strict=True)
        return statistics.median(loop / ours for loop, ours in pairs) / cores


def math_work(count: int) -> list[Judgement]:
    """Return answers in several forms, two of three right."""
    work = []
    for number in range(count):
        gold = GOLDS[number % len(GOLDS)]
        said = gold if number % 3 else f"{number}"
        problem = Problem(str(number), "", gold)
        padding = "We consider the next case in turn. " * 40
        text = padding + FORMS[number % len(FORMS)].format(said)
        work.append(Judgement("MATH500", problem, text))
    return work


def choice_work(count: int) -> list[Judgement]:
    """Return answers that name a letter after some reasoning."""
    padding = "We weigh the options against each other. " * 100
    return [
        Judgement(
            "GPQADiamond",
            Problem(str(number), "", "ABCD"[number % 4]),
            f"{padding}The answer is ({'ABCD'[number * 7 % 4]}).",
        )
        for number in range(count)
    ]


def code_work(count: int) -> list[Judgement]:
    """Return programs of some milliseconds, each with three tests."""
    tests = [(n, sum(i * i for i in range(n)) % 1000003) for n in (10, 1000, 20000)]
    public = [{"input": f"{given}\n", "output": f"{out}\n"} for given, out in tests]
    gold = {"starter": "", "function": None, "public": json.dumps(public), "private": "[]"}
    problem = Problem("sum", "", json.dumps(gold))
    wrong = PROGRAM.replace("1000003", "1000033")
    return [
        Judgement(
            "LiveCodeBench", problem, f"```python\n{wrong if number % 4 == 0 else PROGRAM}\n```"
        )
        for number in range(count)
    ]


def loop(work: Sequence[Judgement]) -> list[Outcome]:
    """Judge one after the other in a new process, which makes the same answers by itself."""
    kind, count = work[0].benchmark, len(work)
    done = subprocess.run(
        [sys.executable, __file__, "--loop", kind, "--count", str(count)],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: list[Outcome] = pickle.loads(done.stdout)
    return found


def loop_here(kind: str, count: int) -> None:
    """Be the process of :func:`loop`."""
    work = MAKERS[kind](count)
    found = [registry.get(one.benchmark).judge(one.problem, one.text) for one in work]
    sys.stdout.buffer.write(pickle.dumps(found))


MAKERS = {"MATH500": math_work, "GPQADiamond": choice_work, "LiveCodeBench": code_work}


def measure(kind: Kind, rounds: int) -> None:
    """Judge a kind in all ways, in an order that turns round."""
    ways: list[tuple[str, Callable[[Sequence[Judgement]], list[Outcome]]]] = [
        ("loop", loop),
        ("pool, 1 process", JudgePool(1).judge),
        (f"pool, {CORES} processes", JudgePool(CORES).judge),
    ]
    verdicts: list[Outcome] | None = None
    for turn in range(rounds):
        for name, judge in ways[turn % 3 :] + ways[: turn % 3]:
            began = time.perf_counter()
            found = judge(kind.work)
            kind.seconds.setdefault(name, []).append(time.perf_counter() - began)
            verdicts = verdicts or found
            if found != verdicts:
                raise SystemExit(f"{kind.name}: {name} judges otherwise than the others.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of few answers")
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        loop_here(arguments.loop, arguments.count)
        return
    rounds, size = (1, 1) if arguments.quick else (3, 5)
    kinds = [
        Kind("mathematics", math_work(3000 * size)),
        Kind("choice", choice_work(20000 * size)),
        Kind("code", code_work(400 * size)),
    ]
    whole = f"pool, {CORES} processes"
    table = Table(title=f"Answers a second, median of {rounds}; {CORES} cores")
    for column in ("kind", "answers", "loop", "pool, 1 process", whole, "of the cores"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind in kinds:
        measure(kind, rounds)
        rates = [f"{kind.rate(way):,.0f}" for way in ("loop", "pool, 1 process", whole)]
        table.add_row(kind.name, f"{len(kind.work):,}", *rates, f"{kind.ratio(whole, CORES):.2f}")
    Console(width=110).print(table)
    ratios = " ".join(
        f"{kind.name}_of_cores={kind.ratio(whole, CORES):.2f}"
        f" {kind.name}_one_process={kind.ratio('pool, 1 process', 1):.2f}"
        for kind in kinds
    )
    print(f"perf scoring: {ratios} goal={GOAL} cores={CORES} verdicts=identical rounds={rounds}")


if __name__ == "__main__":
    main()
