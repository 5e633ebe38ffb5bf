"""Answering a dataset by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_worker import cli
from shard_worker.evalchemy import bounds, requests_of
from shard_worker.layout import ShardLayout
from shard_worker.parts import read_parts

pytestmark = pytest.mark.unit

By = Callable[..., int]


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "context": [{"role": "user", "content": f"question {at // 2}"}],
            "gen_kwargs": {"max_new_tokens": 32, "temperature": 0.7, "top_p": 0.95, "seed": at % 2},
            "repeat_idx": at % 2,
            "request_idx": at // 2,
            "task_name": "AIME24",
            "metadata": {"problem_id": f"p{at}"},
        }
        for at in range(count)
    ]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "evalset"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows(10)), folder / "train-00000-of-00001.parquet")
    return folder


@pytest.fixture
def by_hand(dataset: Path, model: Path, tmp_path: Path, restored_process: None) -> By:
    def run(*more: str, size: int = 1, rank: int = 0, **changes: str) -> int:
        named = {
            "input_dataset": str(dataset),
            "model_name": str(model),
            "output_dataset": str(tmp_path / "out"),
            "engine": "echo",
            **changes,
        }
        words = [f"--{name}={value}" for name, value in named.items()]
        return cli.main(["process-shard", f"--global_size={size}", f"--rank={rank}", *words, *more])

    return run


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(file) for file in sorted(folder.glob("train-*.parquet")))


def test_the_answers_come_back_beside_all_that_went_in(by_hand: By, tmp_path: Path) -> None:
    assert by_hand("--offline") == 0
    out = read(tmp_path / "out").to_pylist()
    assert [row.pop("model_outputs") for row in out] == [f"question {at // 2}" for at in range(10)]
    assert out == rows(10)


def test_the_output_is_a_dataset_of_the_hub_library(by_hand: By, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for rank in range(3):
        assert by_hand("--offline", size=3, rank=rank) == 0
    out = tmp_path / "out"
    assert sorted(file.name for file in out.glob("*.parquet")) == [
        f"train-{rank:05d}-of-00003.parquet" for rank in range(3)
    ]
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["model_outputs"] == [f"question {at // 2}" for at in range(10)]


def test_another_number_of_shards_makes_only_what_is_missing(
    by_hand: By, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_hand("--offline", size=2, rank=1) == 0
    for rank in range(3):
        assert by_hand("--offline", size=3, rank=rank) == 0
    said = capsys.readouterr().err
    made = [
        int(line.rpartition(", ")[2].split()[0]) for line in said.splitlines() if "to do" in line
    ]
    assert sum(made) == 10
    out = tmp_path / "out"
    assert {file.name[-13:-8] for file in out.glob("*.parquet")} == {"00003"}
    assert read(out).num_rows == 10


def test_other_settings_never_meet_old_answers(by_hand: By, tmp_path: Path) -> None:
    assert by_hand("--offline") == 0
    assert by_hand("--offline", "--chat-template-args", '{"enable_thinking": false}') == 0
    layout = ShardLayout(tmp_path / "out" / ".shard-worker", 0, 1)
    fingerprint = json.loads(layout.spec.read_text())["fingerprint"]
    assert len(read_parts(layout.parts, fingerprint)) == 10


@pytest.mark.parametrize(
    ("words", "changes", "sentence"),
    [
        ([], {"rank": 3}, "--rank is 3; it must be from 0 to 0"),
        ([], {"input_dataset": "/no/such/set"}, "The dataset /no/such/set does not exist"),
        ([], {"model_name": "/no/such/model"}, "The model /no/such/model does not exist"),
        (["--offline", "--upload"], {}, "--upload needs the network that --offline forbids"),
        (["--upload"], {}, "is no Hub dataset id; give --repo_id org/name"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    by_hand: By,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    changes: dict[str, Any],
    sentence: str,
) -> None:
    assert by_hand(*words, **changes) == 2
    assert sentence in capsys.readouterr().err


def test_a_dataset_of_another_schema_is_refused(
    by_hand: By, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "hi"}\n')
    assert by_hand("--offline", input_dataset=str(tmp_path / "x.jsonl")) == 2
    assert "neither the columns context and gen_kwargs" in capsys.readouterr().err


def test_a_system_instruction_comes_first(by_hand: By, tmp_path: Path) -> None:
    assert by_hand("--offline", "--system_instruction", "Be brief.") == 0
    context = read(tmp_path / "out").column("context")[0].as_py()
    assert [one["role"] for one in context] == ["system", "user"]


@given(st.integers(0, 500), st.integers(1, 40))
def test_shards_cover_every_row_once(count: int, size: int) -> None:
    ends = [bounds(count, size, rank) for rank in range(size)]
    assert [at for start, stop in ends for at in range(start, stop)] == list(range(count))
    assert max(b - a for a, b in ends) - min(b - a for a, b in ends) <= 1


@given(st.lists(st.text(max_size=5), min_size=1, max_size=20))
def test_equal_rows_get_ids_and_seeds_of_their_own(texts: list[str]) -> None:
    table = pa.table(
        {"context": texts, "gen_kwargs": ['{"temperature": 1, "until": "END"}'] * len(texts)}
    )
    requests = requests_of(table)
    assert len({one.request_id for one in requests}) == len(texts)
    assert requests == requests_of(table)
    assert {one.sampling.stop for one in requests} == {("END",)}


def test_greedy_settings_and_every_name_of_the_length_are_understood() -> None:
    settings = [
        {"do_sample": False, "max_gen_toks": 5},
        {"max_tokens": 6, "temperature": 0},
        {"stop": ["a", "b"], "temperature": 0.5},
    ]
    table = pa.table({"context": ["q"] * 3, "gen_kwargs": [json.dumps(one) for one in settings]})
    found = [one.sampling for one in requests_of(table)]
    assert [one.temperature for one in found] == [0, 0, 0.5]
    assert [one.max_tokens for one in found] == [5, 6, 32768]
    assert found[2].stop == ("a", "b")
