"""Rows of a CSV file or of a database's table."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightshard.checkpoints.config import TableSource
from nightshard.checkpoints.found import Found, Interval, Report, SourceError, as_utc
from nightshard.core.hashing import content_id

_OWN = ("model", "revision", "appeared_at")


@dataclass(frozen=True, slots=True)
class Table:
    """A source of rows.

    Attributes:
        config: where they are.
    """

    config: TableSource

    def find(self, interval: Interval) -> Report:
        """See :class:`~nightshard.checkpoints.found.Source`."""
        where = str(self.config.file or self.config.table)
        return read_rows(self._rows(), where, interval)

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        if self.config.file is not None:
            try:
                with self.config.file.open(encoding="utf-8", newline="") as file:
                    yield from csv.DictReader(file)
            except OSError as error:
                reason = error.strerror or error
                raise SourceError(f"{self.config.file} cannot be read: {reason}.") from None
            return
        try:
            engine = sa.create_engine(str(self.config.url))
            table = sa.table(str(self.config.table))
            with engine.connect() as connection:
                found = connection.execute(sa.select(sa.text("*")).select_from(table))
                yield from (dict(row) for row in found.mappings())
        except sa.exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0].rstrip(".")
            raise SourceError(f"The table {self.config.table} cannot be read: {reason}.") from None


def read_rows(rows: Iterable[Mapping[str, Any]], where: str, interval: Interval) -> Report:
    """Choose the checkpoints of an interval among rows.

    Raises:
        SourceError: a row has no model or no time; it is named by its number.
    """
    found = []
    for number, row in enumerate(rows, 1):
        model, at = row.get("model"), row.get("appeared_at")
        if not model or not at:
            raise SourceError(f"{where}, row {number}: model or appeared_at is missing.")
        try:
            appeared = as_utc(at if isinstance(at, datetime) else datetime.fromisoformat(str(at)))
        except ValueError:
            raise SourceError(
                f"{where}, row {number}: {at!r} is no time such as 2026-01-31T02:00:00Z."
            ) from None
        if appeared not in interval:
            continue
        given = {key: value for key, value in row.items() if key and value not in (None, "")}
        params = {key: _value(value) for key, value in given.items() if key not in _OWN}
        revision = given.get("revision")
        version = content_id([str(model), revision, appeared.isoformat()])
        found.append(
            Found(str(model), appeared, version, str(revision) if revision else None, params)
        )
    return Report(tuple(sorted(found, key=lambda one: one.appeared)))


def _value(value: Any) -> Any:
    """Read a cell of text as JSON where it is JSON: ``["MATH500"]``, ``8``, ``true``."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
