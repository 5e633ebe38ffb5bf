"""Work is balanced by how long earlier answers were."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from support.merging import save_answers

from nightshard.core.plan import PastLengths, with_past_lengths
from nightshard.core.requests import Request, Sampling, make_request
from nightshard.results.answers import answers_path
from nightshard.results.arrow import MERGED_SCHEMA
from nightshard.results.lengths import past_lengths

pytestmark = pytest.mark.unit


def save(root: Path, run_key: str, fingerprint: str, *answers: tuple[str, str, int | None]) -> None:
    rows = [
        {
            "request_id": f"{run_key}-{number}",
            "benchmark": benchmark,
            "problem_id": problem,
            "output_tokens": length or 0,
            "error": "failed" if length is None else None,
            "finished_at": datetime(2026, 1, 2, tzinfo=UTC),
            "run_key": run_key,
            "fingerprint": fingerprint,
        }
        for number, (benchmark, problem, length) in enumerate(answers)
    ]
    table = pa.Table.from_pylist(rows, schema=MERGED_SCHEMA)
    save_answers(str(root), fingerprint, run_key, table)


def ask(benchmark: str, problem: str) -> Request:
    return make_request(
        benchmark=benchmark,
        benchmark_version="1",
        problem_id=problem,
        repeat_idx=0,
        messages=[{"role": "user", "content": "?"}],
        sampling=Sampling(0.0, 1.0, 4096),
        expected_tokens=100,
    )


def test_a_problem_is_expected_to_take_what_it_took_else_what_its_benchmark_took(
    tmp_path: Path,
) -> None:
    save(tmp_path, "r1", "fp1", ("MATH500", "a", 200), ("MATH500", "b", 1000))
    save(tmp_path, "r2", "fp2", ("MATH500", "a", 400), ("MATH500", "c", None), ("AMC23", "a", 7))
    past = past_lengths(str(tmp_path), ["MATH500", "AIME24"])
    asked = [ask("MATH500", "a"), ask("MATH500", "new"), ask("AIME24", "a")]
    expected = with_past_lengths(asked, past)
    assert [one.expected_tokens for one in expected] == [300, 533, 100]
    assert [one.request_id for one in expected] == [one.request_id for one in asked]


def test_without_answers_or_with_a_torn_file_the_benchmarks_own_estimate_stays(
    tmp_path: Path,
) -> None:
    assert past_lengths(str(tmp_path), ["MATH500"]) == PastLengths({}, {})
    torn = answers_path(str(tmp_path), "fp", "run")
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"PAR1")
    assert past_lengths(str(tmp_path), ["MATH500"]) == PastLengths({}, {})
