"""Answers that Evalchemy left are matched to problems, judged, and a run like any other."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.cli import cli
from nightshard.core.errors import UserError
from nightshard.results.precomputed import match, read_rows

pytestmark = pytest.mark.unit

MATH = [
    Problem("p0", "How much is 1 + 1?", "2"),
    Problem("p1", "How much is 1 + 1? Give the result in base 2.", "10"),
]
CHOICE = [Problem("g0", "Which?\n\nA) red one\nB) green\nC) red\nD) blue", "C", "Physics")]
SHOWN = "Which?\n\n(A) blue\n(B) red\n(C) green\n(D) red one\n\nAnswer with a letter."


def row(task: str, question: str, answer: str | None, **more: Any) -> dict[str, Any]:
    chat = [{"role": "user", "content": question}]
    return {"context": chat, "task_name": task, "model_outputs": answer, "repeat_idx": 0, **more}


def matched(rows: list[dict[str, Any]]) -> Any:
    problems = {"MATH500": MATH, "GPQADiamond": CHOICE}
    return match(rows, {name: registry.get(name) for name in problems}, problems)


def test_each_row_is_matched_by_the_question_that_it_shows() -> None:
    rows = [
        row("MATH500", "Problem: How much is  1 + 1? Give the result\nin base 2. Mark it.", "a"),
        row("MATH500", "Problem: How much is 1 + 1? Mark it.", "b"),
        row("MATH500", "Problem: How much is 1 + 1? Mark it.", "c"),
        row("MATH500", "Something else", "d"),
        row("AIME24", "A task that was not asked for", "e"),
    ]
    found = matched(rows)
    asked = [(one.benchmark, one.problem_id, one.repeat_idx) for one in found.requests]
    assert asked == [("MATH500", "p1", 0), ("MATH500", "p0", 0), ("MATH500", "p0", 1)]
    assert found.texts == ["a", "b", "c"]
    assert found.strangers == {"MATH500": 1}


def test_the_gold_letter_follows_the_options_as_they_were_shown() -> None:
    found = matched([row("GPQADiamond", SHOWN, "The answer is (B).")])
    (problem,) = found.problems["GPQADiamond"]
    assert problem.gold == "B"


def test_a_repeat_with_another_order_of_options_does_not_count() -> None:
    other = SHOWN.replace("(A) blue\n(B) red", "(A) red\n(B) blue")
    found = matched([row("GPQADiamond", SHOWN, "(B)"), row("GPQADiamond", other, "(A)")])
    assert len(found.requests) == 1
    assert found.strangers == {"GPQADiamond": 1}


@pytest.mark.parametrize("kind", [list, json.dumps, lambda chat: chat[0]["content"]])
def test_a_chat_may_be_a_list_or_json_or_text(kind: Any) -> None:
    chat = kind([{"role": "user", "content": MATH[0].question}])
    found = matched([{**row("MATH500", "", "x"), "context": chat}])
    assert found.requests[0].messages[0]["content"] == MATH[0].question


@given(st.text())
def test_no_answer_and_no_question_breaks_the_match(text: str) -> None:
    found = matched([row("MATH500", text, text), row("GPQADiamond", text, text)])
    assert len(found.requests) + found.strangers.total() == 2


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two shards, and our questions in a file."""
    monkeypatch.setenv("NIGHTSHARD_HOME", str(tmp_path / "home"))
    questions = [{"problem": one.question, "answer": one.gold} for one in MATH]
    (tmp_path / "math.jsonl").write_text("\n".join(map(json.dumps, questions)))
    folder = tmp_path / "answers"
    folder.mkdir()
    rows = [
        row("MATH500", MATH[0].question, "So \\boxed{2}", gen_kwargs="{}"),
        row("MATH500", MATH[1].question, "", gen_kwargs="{}"),
    ]
    for rank, one in enumerate(rows):
        name = f"train-{rank:05d}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist([one]), folder / name)
    return folder


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_it_is_a_run_that_can_be_scored_again_and_a_second_time_changes_nothing(
    answers: Path,
) -> None:
    source = f"MATH500={answers.parent / 'math.jsonl'}"
    command = ("import", str(answers), "--model", "org/old", "--source", source)
    first = run(*command)
    key = first.output.partition(":")[0]
    assert key.startswith("imported-org-old-")
    assert "1 answers judged" in first.output
    assert (
        "50 %, partial" in first.output
    )  # coverage: the empty text is no answer, and no wrong one
    assert run(*command).output.splitlines()[0] == first.output.splitlines()[0]
    assert "1 answers judged, all as before" in run("rescore", key).output
    scores = json.loads(run("results", "--run", key, "--json").output)
    accuracy = [one for one in scores if one["metric"] == "accuracy"]
    assert [(one["value"], one["coverage"], one["n"]) for one in accuracy] == [(1.0, 0.5, 1)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: folder / "none", "There is no folder"),
        (lambda folder: folder.parent / "empty", r"holds no \.parquet file"),
    ],
)
def test_a_folder_that_cannot_be_used_is_said_in_a_sentence(
    answers: Path, change: Any, sentence: str
) -> None:
    (answers.parent / "empty").mkdir()
    with pytest.raises(UserError, match=sentence):
        run("import", str(change(answers)), "--model", "m")


def test_another_schema_is_said_in_a_sentence(answers: Path) -> None:
    pq.write_table(pa.table({"prompt": ["x"]}), answers / "a.parquet")
    with pytest.raises(UserError, match=r"has no column context, only prompt; .*Evalchemy"):
        read_rows(answers)


def test_a_task_that_is_not_there_is_said_in_a_sentence(answers: Path) -> None:
    with pytest.raises(UserError, match="has no task 'AIME24', only MATH500"):
        run("import", str(answers), "--model", "m", "--tasks", "AIME24")


def test_answers_to_other_questions_are_not_stored(answers: Path) -> None:
    (answers.parent / "math.jsonl").write_text('{"problem": "Other?", "answer": "1"}')
    source = f"MATH500={answers.parent / 'math.jsonl'}"
    with pytest.raises(UserError, match="shows a question of its benchmark; nothing is stored"):
        run("import", str(answers), "--model", "m", "--source", source)
