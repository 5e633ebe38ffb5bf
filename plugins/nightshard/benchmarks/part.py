"""A part of a benchmark: by difficulty and by date."""

import re
from dataclasses import dataclass
from typing import Self

from nightshard.core.errors import UserError

DIFFICULTIES = ("easy", "medium", "hard")

_WINDOW = re.compile(r"(\d{4}-\d{2}(?:-\d{2})?)?\.\.(\d{4}-\d{2}(?:-\d{2})?)?")


@dataclass(frozen=True, slots=True)
class Part:
    """Which problems belong to it; by default all.

    Attributes:
        difficulty: the only one, None for all.
        first: first day as YYYY-MM or YYYY-MM-DD, empty for no bound.
        last: last day, or last month with all its days.
    """

    difficulty: str | None = None
    first: str = ""
    last: str = ""

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """Read ``hard``, ``2024-08..2025-01`` or both with a + between.

        Args:
            name: of the benchmark, for messages.
            text: the part. Either end of a window may be left out; both ends are inside.

        Raises:
            UserError: it is neither.
        """
        values: dict[str, str] = {}
        for word in text.split("+"):
            window = _WINDOW.fullmatch(word)
            found = {"difficulty": word} if word in DIFFICULTIES else {}
            if window and any(window.groups()):
                found = {"first": window[1] or "", "last": window[2] or ""}
            if not found or found.keys() & values.keys():
                raise UserError(
                    f"{name}: {word!r} is no part of it; write {', '.join(DIFFICULTIES)}, dates "
                    "such as 2024-08..2025-01, or one of each with a + between."
                )
            values |= found
        part = cls(**values)
        if part.first and part.last and not part.first[: len(part.last)] <= part.last:
            raise UserError(f"{name}: its dates end before they begin; swap them.")
        return part

    def holds(self, difficulty: str | None, day: str) -> bool:
        """Tell whether a problem belongs to it.

        Args:
            difficulty: the problem's.
            day: YYYY-MM-DD; a problem without a day is in no window.
        """
        if self.difficulty is not None and difficulty != self.difficulty:
            return False
        if not (self.first or self.last):
            return True
        return (
            bool(day)
            and self.first <= day
            and (not self.last or day[: len(self.last)] <= self.last)
        )


WHOLE = Part()
