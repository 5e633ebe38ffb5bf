"""Where the result pages read: the results database and the artefact store."""

import contextlib
import threading
from collections.abc import Iterator
from functools import cached_property

import sqlalchemy as sa

from nightshard.core.errors import UserError
from nightshard.results.compare import Comparison, compare_runs
from nightshard.results.database import open_database
from nightshard.results.read import get_run
from nightshard.results.records import RunRecord
from nightshard.results.samples import Samples
from nightshard.web.pages import NotThereError


class Source:
    """Scores and answers; opened when they are first asked for.

    Args:
        database_url: of the results database.
        store: the artefact store, a folder or any fsspec URL.
    """

    def __init__(self, database_url: str, store: str) -> None:
        self._url = database_url
        self._store = store
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None

    @property
    def engine(self) -> sa.Engine:
        """The results database.

        Raises:
            UserError: it cannot be used.
        """
        with self._lock:
            if self._engine is None:
                self._engine = open_database(self._url)
            return self._engine

    @cached_property
    def samples(self) -> Samples:
        """The answers."""
        return Samples(self._store)

    def run(self, run_key: str) -> RunRecord:
        """Return a run.

        Raises:
            NotThereError: there is none.
        """
        engine = self.engine
        with there():
            return get_run(engine, run_key)

    def compare(self, first: str, second: str) -> list[Comparison]:
        """Compare two runs.

        Raises:
            NotThereError: one of them has no answers, or they have no benchmark in common.
        """
        with there():
            return compare_runs(self._store, first, second)


@contextlib.contextmanager
def there() -> Iterator[None]:
    """Tell a program that what it asked for is not there, and not that the server is broken."""
    try:
        yield
    except UserError as error:
        raise NotThereError(str(error)) from error
