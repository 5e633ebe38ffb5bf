"""Finding the request that crashes an engine. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class Suspects(Generic[Item]):
    """Groups of requests of which one may crash the engine, each to be run alone.

    After a crash those that ran are tried once more together, since a crash may have had nothing to
    do with them. If it comes again they are halved, and each half is tried alone, until one request
    that runs alone crashes the engine: that one is guilty. One guilty request among *n* is found in
    about log2(n) + 2 crashes.
    """

    _groups: list[list[Item]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def next_group(self) -> list[Item]:
        """Return the group to be run now, with nothing beside it."""
        return list(self._groups[-1])

    def survived(self) -> None:
        """Note that the group ran to its end."""
        self._groups.pop()

    def crashed(self, running: Sequence[Item]) -> list[Item]:
        """Note a crash.

        Args:
            running: the requests that had been given to the engine and had not finished.

        Returns:
            Those that are guilty for sure; the others are tried again.
        """
        if not self._groups:
            self._groups.append(list(running))
            return []
        self._groups.pop()
        if len(running) == 1:
            return list(running)
        middle = len(running) // 2
        self._groups += [list(half) for half in (running[middle:], running[:middle]) if half]
        return []
