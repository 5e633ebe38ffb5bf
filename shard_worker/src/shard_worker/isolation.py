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
    about log2(n) + 2 crashes. While the engine has answered nothing at all, one request is tried
    alone in place of a half, which tells a broken engine from a bad request in a few crashes.
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

    def crashed(self, running: Sequence[Item], *, proven: bool = True) -> list[Item]:
        """Note a crash.

        Args:
            running: the requests that had been given to the engine and had not finished.
            proven: the engine has answered something.

        Returns:
            Those that are guilty for sure; the others are tried again.
        """
        if not self._groups:
            self._groups.append(list(running))
            return []
        self._groups.pop()
        if len(running) == 1:
            if self._groups and not proven:
                self._set_one_apart(self._groups.pop())
            return list(running)
        if proven:
            middle = len(running) // 2
            self._groups += [list(running[middle:]), list(running[:middle])]
        else:
            self._set_one_apart(running)
        return []

    def _set_one_apart(self, group: Sequence[Item]) -> None:
        # The last: work is begun longest first, and what is short is least likely to be guilty.
        self._groups += [list(part) for part in (group[:-1], group[-1:]) if part]
