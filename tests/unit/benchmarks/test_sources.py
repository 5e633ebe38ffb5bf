"""Questions come from files or the Hub, and what cannot be used is refused in one sentence."""

import csv
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.benchmarks import registry, sources
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.sources import Columns
from nightshard.core.errors import UserError

pytestmark = pytest.mark.unit

GOOD = [
    {"id": "a", "problem": "What is $1+1$?", "answer": "2", "subject": "Algebra"},
    {"id": "b", "problem": "Half of one?", "answer": 0.5, "subject": None},
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(
            pa.Table.from_pylist([{**row, "answer": str(row["answer"])} for row in rows]), path
        )
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_problems(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"questions{suffix}", GOOD)
    assert registry.get("MATH500").load(source) == [
        Problem("a", "What is $1+1$?", "2", "Algebra"),
        Problem("b", "Half of one?", "0.5", None),
    ]


@pytest.mark.parametrize(
    ("row", "gold"),
    [
        ({"problem": "q", "expected_answer": "721"}, "721"),
        ({"question": "q", "answer": 27}, "27"),
        ({"Question": "q", "Answer": 27.0}, "27"),
        ({"problem": "q", "answer": "\\frac12"}, "\\frac12"),
    ],
)
def test_columns_are_found_under_the_names_in_use(
    tmp_path: Path, row: dict[str, Any], gold: str
) -> None:
    source = write(tmp_path / "q.jsonl", [row])
    assert registry.get("AIME24").load(source) == [Problem("0", "q", gold)]


def test_a_file_of_one_s_own_may_hold_any_number_of_problems(tmp_path: Path) -> None:
    assert len(registry.get("Starter").load(write(tmp_path / "q.jsonl", GOOD))) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"problem": "q", "answer": "1"}\n\n{"problem": "q"}\n', r"no gold answer at line 3 of"),
        ('{"answer": "1"}\n', r"no question at line 1 of q.jsonl, only answer; name its column"),
        ('{"problem": " ", "answer": "1"}\n', r"question at line 1 of q.jsonl is empty"),
        ('{"problem": "q", "answer": null}\n', r"gold answer at line 1 of q.jsonl is empty"),
        ('{"problem": "q", "answer": ["1"]}\n', r"gold answer at line 1 .* is a list"),
        ('{"problem": "q", "answer": true}\n', r"gold answer at line 1 .* is a bool"),
        ('{"problem": "q", "answer"\n', r"is not JSON at line 1"),
        ("[" * 100_000, r"is not JSON at line 1"),
        ("[1]\n", r"has no object at line 1"),
        ("\n\n", r"q.jsonl holds no problems"),
        (
            '{"id": 1, "problem": "q", "answer": "1"}\n{"id": "1", "problem": "r", "answer": "2"}',
            r"problem '1' twice, at line 1 and at line 2",
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=sentence) as caught:
        registry.get("AIME24").load(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.jsonl", None, "There is no file .*none.jsonl"),
        ("q.txt", b"x", r"give a file that ends in \.jsonl, \.json, \.csv, \.parquet"),
        ("q.parquet", b"not parquet", "is not a parquet file"),
        ("q.json", b'{"a": 1}', "is not a list of objects"),
        ("q.jsonl", b"\xff\xfe\x00", "is not UTF-8"),
        ("q.csv", b"problem,answer\nq,1,extra\n", "another number of fields .* at line 2"),
        ("q.csv", b"problem,answer\nq\n", "another number of fields .* at line 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        registry.get("MATH500").load(str(path))


texts = st.text(min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
def test_any_text_survives_a_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "q.jsonl"
    lines = [
        json.dumps({"question": q, "answer": a}, ensure_ascii=bool(i % 2))
        for i, (q, a) in enumerate(rows)
    ]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    problems = sources.to_problems(sources.read_file(path), Columns(), path.name)
    assert [(p.question, p.gold) for p in problems] == rows
    assert [p.problem_id for p in problems] == [str(i) for i in range(len(rows))]


class FakeHub(types.ModuleType):
    """Stands in for the datasets package: what it was asked, and the rows it gives."""

    def __init__(self, rows: list[dict[str, Any]] | Exception) -> None:
        super().__init__("datasets")
        self.rows = rows
        self.asked: dict[str, Any] = {}

    def load_dataset(self, path: str, **options: Any) -> list[dict[str, Any]]:
        self.asked = {"path": path, **options}
        if isinstance(self.rows, Exception):
            raise self.rows
        return self.rows


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub([])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def test_the_hub_is_read_at_a_pinned_revision_and_the_year_s_rows_are_kept(hub: FakeHub) -> None:
    hub.rows = [
        {"ID": f"{year}-{n}", "Year": year, "Question": f"q{n}", "Answer": str(n)}
        for year in (2023, 2024)
        for n in range(1, 31)
    ]
    problems = registry.get("AIME24").load()
    assert hub.asked["path"] == "di-zhang-fdu/AIME_1983_2024"
    assert len(hub.asked["revision"]) == 40
    assert len(problems) == 30
    assert problems[0] == Problem("2024-1", "q1", "1")


def test_amc_keeps_the_rows_of_2023(hub: FakeHub) -> None:
    hub.rows = [
        {"id": n, "problem": f"q{n}", "answer": float(n), "url": f"wiki/{year}_AMC_12A_Problems/1"}
        for n, year in enumerate([2022] * 43 + [2023] * 40)
    ]
    problems = registry.get("AMC23").load()
    assert [p.gold for p in problems] == [str(n) for n in range(43, 83)]


def test_another_count_than_the_recorded_one_is_refused(hub: FakeHub) -> None:
    hub.rows = [{"problem": "q", "answer": "1"}]
    with pytest.raises(UserError, match="gave 1 problems of MATH500, but 500 were recorded"):
        registry.get("MATH500").load()


@pytest.mark.parametrize(
    "error",
    [ConnectionError("no route\nmore"), ValueError("unknown split"), FileNotFoundError("gated")],
)
def test_a_hub_that_does_not_answer_says_what_to_do_instead(hub: FakeHub, error: Exception) -> None:
    hub.rows = error
    with pytest.raises(UserError, match="or give a local file as its source") as caught:
        registry.get("AIME25").load()
    assert "\n" not in str(caught.value)
