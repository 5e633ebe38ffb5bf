"""``docs/reliability.md`` says what the fault tests measured, about all of them and no others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.faults import table
from support.faults.table import Row

from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

WORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), min_size=1).map(
    lambda text: " ".join(text.replace("\\", "").split()) or "x"
)


def test_the_page_has_exactly_the_cases_of_the_tests() -> None:
    page = (PROJECT_ROOT / table.PAGE).read_text(encoding="utf-8")
    assert list(table.read(page)) == list(table.declared(PROJECT_ROOT)), (
        "run `make reliability` to measure the cases again"
    )


def test_every_case_on_the_page_lost_and_doubled_nothing() -> None:
    rows = table.read((PROJECT_ROOT / table.PAGE).read_text(encoding="utf-8")).values()
    assert {(r.lost, r.twice, r.orphaned, r.doubled) for r in rows} == {(0, 0, 0, 0)}
    assert all(row.message for row in rows)


@given(st.dictionaries(WORDS, st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_what_is_written_is_read_back(cells: dict[str, tuple[str, str]]) -> None:
    rows = {
        kind: Row(kind, happened, 0, 1, 2, 3, message)
        for kind, (happened, message) in cells.items()
    }
    kinds = dict.fromkeys(rows, table.GROUPS[0])
    assert table.read(table.render(kinds, rows)) == rows


def test_a_page_does_not_change_where_only_ids_nodes_and_paths_do() -> None:
    said = "Slurm job 813_2: running on node{}, see /tmp/{}/shared/nightshard/runs/run-{}/x"
    assert table.example(said.format(3, "abc", 12)) == table.example(said.format(1, "de/f", 4))


def test_a_case_that_is_declared_twice_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "faults"
    folder.mkdir(parents=True)
    text = "@pytest.mark.fault('Submitting', 'it breaks')\ndef test_it(): ...\n"
    (folder / "test_one.py").write_text(text)
    assert table.declared(tmp_path) == {"it breaks": "Submitting"}
    (folder / "test_two.py").write_text(text)
    with pytest.raises(ValueError, match="two tests"):
        table.declared(tmp_path)
