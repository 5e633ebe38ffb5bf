"""MATH500's first questions from a file: each answered once, the score as judged by hand."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from math_verify import parse, verify
from support.stack import FinishedRun, Stack

pytestmark = pytest.mark.e2e

QUESTIONS = 20
SHARDS = 4


@pytest.fixture(scope="module")
def run(stack: Stack, shared_data: Path) -> FinishedRun:
    """The first 20 questions in 4 shards; the engine answers 9, which one of them asks for."""
    finished = stack.run(
        {
            "tasks": ["MATH500"],
            "source": {"MATH500": str(shared_data / "math500.jsonl")},
            "limit": QUESTIONS,
            "num_shards": SHARDS,
            "cluster": "echo",
        }
    )
    assert finished.state == "success"
    return finished


def test_every_request_id_is_answered_once(run: FinishedRun, stack: Stack) -> None:
    folder = stack.settings.state / "store" / "runs" / run.summary()["run_key"]
    asked = pq.read_table(folder / "requests.parquet").column("request_id").to_pylist()
    shards = [pq.read_table(file) for file in sorted((folder / "outputs").glob("*.parquet"))]
    answered = Counter(one for table in shards for one in table.column("request_id").to_pylist())
    assert len(shards) == SHARDS
    assert answered == dict.fromkeys(asked, 1)
    assert len(asked) == QUESTIONS


def test_the_score_is_that_of_the_merged_answers_judged_by_hand(
    run: FinishedRun, stack: Stack, shared_data: Path
) -> None:
    folder = stack.settings.state / "store" / "runs" / run.summary()["run_key"]
    answers = pq.read_table(folder / "answers.parquet").column("text").to_pylist()
    lines = (shared_data / "math500.jsonl").read_text().splitlines()[:QUESTIONS]
    golds = [json.loads(line)["answer"] for line in lines]
    right = [
        verify(parse(f"${gold}$"), parse(answer))
        for gold, answer in zip(golds, answers, strict=True)
    ]
    assert sum(right) >= 1
    assert run.summary()["scores"][0]["accuracy"] == pytest.approx(sum(right) / QUESTIONS)
