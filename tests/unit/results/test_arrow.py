"""Requests and problems survive their tables."""

import io

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.benchmarks.base import Problem
from nightshard.core.requests import Request, Sampling, make_request
from nightshard.results.arrow import (
    PLANNED_SCHEMA,
    PROBLEM_SCHEMA,
    REQUEST_SCHEMA,
    planned_table,
    problems_to_table,
    requests_to_table,
    table_to_problems,
    table_to_requests,
)

pytestmark = pytest.mark.unit

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
requests = st.builds(
    lambda benchmark, problem, repeat, prompts, sampling: make_request(
        benchmark=benchmark,
        benchmark_version="1",
        problem_id=problem,
        repeat_idx=repeat,
        messages=[{"role": "user", "content": prompt} for prompt in prompts],
        sampling=sampling,
    ),
    texts,
    texts,
    st.integers(0, 2**31 - 1),
    st.lists(texts, max_size=3),
    st.builds(
        Sampling,
        st.floats(0, 2),
        st.floats(0, 1),
        st.integers(1, 2**31 - 1),
        st.integers(0, 2**31 - 1),
        st.lists(texts, max_size=2).map(tuple),
    ),
)


@given(st.lists(requests, max_size=6))
def test_requests_survive_a_parquet_file(rows: list[Request]) -> None:
    file = io.BytesIO()
    pq.write_table(requests_to_table(rows), file)
    table = pq.read_table(file)
    assert table.schema.equals(REQUEST_SCHEMA)
    assert table_to_requests(table) == rows


@given(st.lists(requests, max_size=8, unique_by=lambda r: r.request_id), st.data())
def test_a_plan_says_which_shard_owes_each_answer(rows: list[Request], data: st.DataObject) -> None:
    owner = [data.draw(st.sampled_from([None, 0, 1])) for _ in rows]
    shards = [[r for r, o in zip(rows, owner, strict=True) if o == rank] for rank in (0, 1)]
    table = planned_table(rows, shards)
    assert table.schema.equals(PLANNED_SCHEMA)
    assert table.column("rank").to_pylist() == owner
    assert table_to_requests(table) == rows


problems = st.lists(st.builds(Problem, texts, texts, texts, st.none() | texts), min_size=1)


@given(st.dictionaries(texts, problems, max_size=3))
def test_problems_survive_their_table(by_benchmark: dict[str, list[Problem]]) -> None:
    table = problems_to_table(by_benchmark)
    assert table.schema.equals(PROBLEM_SCHEMA)
    assert table_to_problems(table) == by_benchmark


def test_no_gold_is_among_the_columns_that_travel() -> None:
    assert {"gold", "answer", "solution"}.isdisjoint(REQUEST_SCHEMA.names)
