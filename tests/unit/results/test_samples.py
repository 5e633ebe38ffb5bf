"""Single answers are found in the files of a run, wherever these lie."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evaluated import PROBLEMS, Results, example_results
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results.samples import TABLES_KEPT, Filter, Samples
from nightshard.results.store import RunStore, write_table

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return example_results(tmp_path_factory.mktemp("results"))


@given(size=st.integers(1, 33), wrong=st.booleans())
def test_pages_of_any_size_hold_every_answer_once(results: Results, size: int, wrong: bool) -> None:
    samples = Samples(results.store)
    wanted = Filter(correct=False) if wrong else Filter()
    found, offset = [], 0
    while rows := samples.page("run-200", wanted, offset=offset, limit=size).rows:
        found += [row["request_id"] for row in rows]
        offset += size
    total = 2 * (PROBLEMS - 22 if wrong else PROBLEMS)
    assert len(found) == len(set(found)) == total


def test_answers_in_another_store_than_a_folder_are_found_too(results: Results) -> None:
    there = UPath("memory://samples-test")
    for name in ("answers", "verdicts", "requests", "problems"):
        source = Path(results.store) / "runs" / "run-300" / f"{name}.parquet"
        target = there / "runs" / "run-300" / f"{name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    samples = Samples(there)
    page = samples.page("run-300", Filter(correct=False, benchmark="MATH500"))
    assert page.total == 6
    one = samples.one("run-300", page.rows[0]["request_id"])
    assert (one["problem_id"], one["gold"], one["text"]) == ("p34", "34", "\\boxed{35}")


def test_more_runs_than_are_kept_can_be_looked_at_at_once(tmp_path: Path) -> None:
    results = Results(tmp_path)
    keys = [f"run-{number}" for number in range(TABLES_KEPT + 3)]
    for key in keys:
        results.add(key, "org/a", lambda n: f"\\boxed{{{n}}}")
    samples = Samples(results.store)
    totals: list[int] = []

    def look(key: str) -> None:
        totals.extend(
            samples.page(key, Filter(correct=True), beside=keys[0]).total for _ in range(5)
        )

    threads = [threading.Thread(target=look, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [PROBLEMS] * 5 * len(keys)


def test_a_damaged_file_gets_one_sentence(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add("a", "org/a", lambda n: "")
    (Path(results.store) / "runs/a/verdicts.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="answers of run a cannot be read"):
        Samples(results.store).page("a", Filter())


def test_a_run_with_answers_missing_shows_each_answer_under_its_own_question(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    results.add("a", "org/a", lambda n: f"\\boxed{{{n}}}")
    store = RunStore(UPath(results.store), "a")
    answers = pq.read_table(str(store.answers))
    write_table(store.answers, pa.concat_tables([answers.slice(0, 3), answers.slice(5)]))
    samples = Samples(results.store)
    for row in samples.page("a", Filter()).rows:
        one = samples.one("a", row["request_id"])
        number = int(one["problem_id"][1:])
        assert one["gold"] == str(number)
        assert f"How much is ${number} + 0$?" in one["messages"][0]["content"]
        assert one["extracted"] == str(number)
