"""Real competition questions, where they lie beside the checkout."""

import json
from pathlib import Path

import pytest

from nightshard.benchmarks import registry
from nightshard.benchmarks.judges.pool import Judgement, JudgePool
from nightshard.benchmarks.requests import build_requests

pytestmark = pytest.mark.integration

FILES = [
    ("MATH500", "math500.jsonl"),
    ("AIME24", "aime24.jsonl"),
    ("AIME25", "aime25.jsonl"),
    ("AMC23", "amc23.jsonl"),
]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_local_copy_gives_the_recorded_number_of_problems(
    shared_data: Path, name: str, file: str
) -> None:
    benchmark = registry.get(name)
    problems = benchmark.load(str(shared_data / file))
    assert len(problems) == benchmark.info.problems
    requests = build_requests(benchmark, problems)
    assert len(requests) == benchmark.info.problems * benchmark.info.repeats
    assert len({r.request_id for r in requests}) == len(requests)


def judged_wrong(name: str, file: Path, texts: list[str]) -> list[str]:
    problems = registry.get(name).load(str(file))
    work = [Judgement(name, p, text) for p, text in zip(problems, texts, strict=True)]
    return [
        f"{p.problem_id}: {p.gold!r}: {outcome}"
        for p, outcome in zip(problems, JudgePool().judge(work), strict=True)
        if not getattr(outcome, "correct", False)
    ]


def test_the_reference_solutions_of_math500_are_judged_right(shared_data: Path) -> None:
    file = shared_data / "math500.jsonl"
    solutions = [json.loads(line)["solution"] for line in file.read_text().splitlines()]
    assert judged_wrong("MATH500", file, solutions) == []


@pytest.mark.parametrize(("name", "file"), FILES)
@pytest.mark.parametrize(
    "form",
    [
        "Hence the result is $\\boxed{{ \\displaystyle {gold} }}$.",
        "So the final answer is ${gold}$.",
    ],
)
def test_golds_in_other_words_are_judged_right(
    shared_data: Path, name: str, file: str, form: str
) -> None:
    golds = [problem.gold for problem in registry.get(name).load(str(shared_data / file))]
    texts = [form.format(gold=gold) for gold in golds]
    assert judged_wrong(name, shared_data / file, texts) == []


def test_the_answer_to_another_problem_is_judged_wrong(shared_data: Path) -> None:
    file = shared_data / "math500.jsonl"
    golds = [problem.gold for problem in registry.get("MATH500").load(str(file))]
    texts = [f"\\boxed{{{golds[i - 1]}}}" for i in range(len(golds))]
    # Three neighbours happen to share their answer: 7 and 7, 3 and 3, x=5 and 5.
    assert len(judged_wrong("MATH500", file, texts)) == len(golds) - 3
