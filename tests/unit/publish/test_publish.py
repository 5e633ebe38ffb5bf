"""A run as a folder: what is in it, what is left out, and a card that nothing can break."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.merging import answers_to
from support.recorded import recorded_run
from upath import UPath

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.requests import build_requests
from nightshard.cli import cli
from nightshard.core.errors import UserError
from nightshard.publish.card import command, render
from nightshard.publish.folder import write_folder
from nightshard.results.arrow import problems_to_table, requests_to_table
from nightshard.results.database import open_database
from nightshard.results.records import RunRecord
from nightshard.results.rescore import rescore
from nightshard.results.store import RunStore, write_table
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

ASKED = {
    "MATH500": [Problem("m0", "How much is 1 + 1?", "2"), Problem("m1", "1 + 2?", "3")],
    "GPQADiamond": [Problem("g0", "A secret question\n\nA) x\nB) y\nC) z\nD) w", "C")],
}
TEXTS = ["\\boxed{2}", "\\boxed{7}", "The answer is (C)."]
PARAMS = {
    "model": "org/a",
    "tasks": ["MATH500", "GPQADiamond"],
    "cluster": "local",
    "temperature": 0.5,
    "repeats": 1,
    "seed": 0,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunStore, RunRecord]:
    """A scored run of two benchmarks, one of them gated."""
    monkeypatch.setenv("NIGHTSHARD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("NIGHTSHARD_DB_URL", f"sqlite:///{tmp_path}/results.db")
    store = RunStore(UPath(tmp_path / "store"), "run-1")
    requests = [
        one
        for name, problems in ASKED.items()
        for one in build_requests(registry.get(name), problems, repeats=1)
    ]
    write_table(store.requests, requests_to_table(requests))
    write_table(store.problems, problems_to_table(ASKED))
    write_table(store.answers, answers_to(requests, TEXTS))
    card = rescore(store).card
    made = recorded_run("run-1", model="org/a", day=1, value=0.5)
    made = replace(made, metrics=tuple(card.metrics), params=PARAMS)
    record_run(open_database(f"sqlite:///{tmp_path}/results.db"), made)
    return store, made


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "data" / name / "answers.parquet").to_pylist()


def test_every_answer_is_there_with_its_question_and_its_verdict(
    run: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    write_folder(*run, tmp_path / "out")
    first, second = read(tmp_path / "out", "MATH500")
    assert first["text"] == "\\boxed{2}"
    assert "How much is 1 + 1?" in first["messages"][0]["content"]
    assert (first["correct"], first["extracted"], second["correct"]) == (True, "2", False)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"MATH500", "GPQADiamond"} == {one["benchmark"] for one in metrics}


def test_gated_questions_and_gold_answers_stay_at_home(
    run: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    """Evalchemy's eighth mistake: gated questions are republished."""
    assert write_folder(*run, tmp_path / "out") == ["GPQADiamond"]
    (row,) = read(tmp_path / "out", "GPQADiamond")
    assert (row["problem_id"], row["messages"], row["correct"]) == ("g0", None, True)
    content = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))
    assert b"secret question" not in content
    assert "gold" not in row


def test_the_viewer_of_the_hub_finds_a_configuration_for_each_benchmark(
    run: tuple[RunStore, RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(*run, tmp_path / "out")
    cache = str(tmp_path / "cache")
    assert datasets.get_dataset_config_names(str(tmp_path / "out"), cache_dir=cache) == [
        "MATH500",
        "GPQADiamond",
    ]
    rows = datasets.load_dataset(str(tmp_path / "out"), "MATH500", split="answers", cache_dir=cache)
    assert rows["correct"] == [True, False] or list(rows["correct"]) == [True, False]


def test_a_second_time_replaces_the_first_and_nothing_else(
    run: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    write_folder(*run, tmp_path / "out")
    (tmp_path / "out" / "stale").write_text("x")
    write_folder(*run, tmp_path / "out")
    assert not (tmp_path / "out" / "stale").exists()
    other = tmp_path / "home"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files; name a new folder"):
        write_folder(*run, other)
    assert (other / "thesis.tex").exists()


def test_a_run_whose_answers_are_gone_leaves_nothing_behind(
    run: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    run[0].answers.unlink()
    with pytest.raises(UserError, match="is not there"):
        write_folder(*run, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(UserError, match="has no scores yet"):
        write_folder(run[0], replace(run[1], metrics=()), tmp_path / "out")


def test_the_command_writes_it_and_says_what_is_missing(
    run: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    told = CliRunner().invoke(cli, ["publish", "run-1", str(tmp_path / "out")])
    assert "without the questions of GPQADiamond" in told.output
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| MATH500 | all | accuracy | 0.500 |" in card
    assert "nightshard launch --model-name org/a --tasks MATH500,GPQADiamond" in card
    assert "The questions of GPQADiamond may not be published" in card


def test_the_command_of_the_card_asks_for_the_same() -> None:
    said = command({**PARAMS, "system_prompt": "it's; rm -rf /", "limit": None})
    assert "--temperature 0.5 --repeats 1" in said
    assert said.endswith("--system-prompt 'it'\"'\"'s; rm -rf /'")


@given(st.text(max_size=60))
def test_a_name_of_any_kind_breaks_neither_the_front_matter_nor_a_table(name: str) -> None:
    made = recorded_run("run-1", model=name or "m", day=1, value=0.5)
    metrics = tuple(replace(one, benchmark=name or "b") for one in made.metrics)
    card = render(replace(made, metrics=metrics), gated=[name])
    front = yaml.safe_load(re.split(r"^---$", card, flags=re.MULTILINE)[1])
    assert len(front["configs"]) == 1
    body = card.split("---\n", 2)[2]
    rows = [line for line in body.split("\n") if line.startswith("| ") and " all " in line]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", rows[0])) == 8
    assert "<" not in body.replace("\\<", "")


def test_where_a_groups_files_and_hosts_are_stays_at_home(
    run: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    store, made = run
    place = "/scratch/secret-project"
    params = {**PARAMS, "model": f"{place}/run7/checkpoint-5", "adapter": f"{place}/lora"}
    params["source"] = {"MATH500": f"{place}/math500.jsonl"}
    options = {"base_url": "https://secret-project.example/v1", "draft": f"{place}/draft"}
    made = replace(
        made,
        model=replace(made.model, name="checkpoint-5", path=f"{place}/run7/checkpoint-5"),
        params=params,
        fingerprint_content={"revision": "abc", "settings": {"options": options}},
        spec={"model": {"path": place}},
    )
    write_folder(store, made, tmp_path / "out")
    texts = [path.read_text() for path in (tmp_path / "out").glob("*.*")]
    assert len(texts) == 3
    assert not [text for text in texts if "secret-project" in text]
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert told["params"]["model"] == "checkpoint-5"
    assert told["params"]["source"] == {"MATH500": "math500.jsonl"}
    assert told["fingerprint_content"]["settings"]["options"] == {
        "base_url": "v1",
        "draft": "draft",
    }
