"""Pytest's side of the fault matrix: the mark of a case, its row, and the page at the end."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.faults import table
from support.faults.audit import Counts
from support.faults.table import Row

from nightshard.core.settings import PROJECT_ROOT

_ROWS = pytest.StashKey[dict[str, Row]]()


class Reliability:
    """Takes the rows of one test.

    Attributes:
        rows: what was measured, by what the test breaks as its marks say.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self.rows: dict[str, Row] = {}

    def write(
        self, *, happened: str, counts: Counts, message: str, kind: str | None = None
    ) -> None:
        """Check that nothing was lost or doubled, and keep the row for the page.

        Args:
            happened: what became of the run, a phrase.
            counts: what was counted on the cluster.
            message: the sentence that the user read.
            kind: which of the test's cases, where it has several.
        """
        if kind is None:
            (kind,) = self._kinds
        assert kind in self._kinds
        assert counts == Counts(lost=0, twice=0, orphaned=0, doubled=0), counts
        assert message
        self.rows[kind] = Row(
            kind,
            table.example(happened),
            counts.lost,
            counts.twice,
            counts.orphaned,
            counts.doubled,
            table.example(message),
        )


@pytest.fixture
def reliability(request: pytest.FixtureRequest) -> Iterator[Reliability]:
    """The rows of this test in ``docs/reliability.md``."""
    marks = list(request.node.iter_markers(table.MARK))
    assert marks, "say @pytest.mark.fault(group, kind)"
    recorder = Reliability([mark.args[1] for mark in marks])
    yield recorder
    request.config.stash[_ROWS].update(recorder.rows)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-reliability",
        action="store_true",
        help="write what the fault tests measured into docs/reliability.md",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{table.MARK}(group, kind): a case of docs/reliability.md")
    config.stash[_ROWS] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash[_ROWS]
    if not rows or not session.config.getoption("--write-reliability"):
        return
    page = PROJECT_ROOT / table.PAGE
    known = page.read_text(encoding="utf-8") if page.exists() else ""
    folder = os.environ.get("NIGHTSHARD_RELIABILITY_DIR")
    simulated = table.simulated(Path(folder) if folder else None, known)
    kinds = table.declared(PROJECT_ROOT)
    text = table.render(kinds, {**table.read(known), **rows}, simulated)
    page.write_text(text, encoding="utf-8")
