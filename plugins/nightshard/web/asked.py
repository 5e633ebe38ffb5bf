"""What the addresses of the result pages can ask for, and how an address asks for it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Depends, Path, Query

from nightshard.results.board import ACCURACY, WHEN, Show, View
from nightshard.results.samples import Filter

MAX_PAGE = 100_000
ROWS = 50

_NO_NUL = r"^[^\x00]*$"
_RUN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"

Text = Annotated[str, Query(max_length=200, pattern=_NO_NUL)]
RunKey = Annotated[str, Path(pattern=_RUN, description="Key of a run.")]
RunQuery = Annotated[str, Query(pattern=_RUN, description="Key of a run.")]
MaybeRun = Annotated[str, Query(pattern=rf"^$|{_RUN}", description="Key of a run, or empty.")]
PageNumber = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Size = Annotated[int, Query(ge=1, le=500)]
Names = Annotated[list[str], Query(max_length=200)]
Choice = Literal["", "yes", "no"]


@dataclass(frozen=True, slots=True)
class BoardQuestion:
    """A board and how it is looked at."""

    metric: str
    view: View

    def address(self, **changes: Any) -> str:
        """Return the query that asks the same but for some values."""
        view = asdict(self.view)
        values = {
            "metric": self.metric,
            "model": view["model"],
            "benchmark": view["benchmarks"],
            "show": view["show"],
            "sort": view["sort"],
            "order": "desc" if view["descending"] else "asc",
            "page": view["page"],
        }
        return query(values | changes, _BOARD)


_BOARD = {"metric": ACCURACY, "show": "all", "sort": WHEN, "order": "desc", "page": 1}


def board_question(  # noqa: PLR0917 (FastAPI passes by keyword)
    metric: Text = ACCURACY,
    model: Text = "",
    benchmark: Names = [],  # noqa: B006 (FastAPI copies it)
    show: Show = "all",
    sort: Text = WHEN,
    order: Literal["asc", "desc"] = "desc",
    page: PageNumber = 1,
) -> BoardQuestion:
    """Read which leaderboard is asked for."""
    view = View(
        model=model,
        benchmarks=tuple(benchmark),
        show=show,
        sort=sort,
        descending=order == "desc",
        page=page,
    )
    return BoardQuestion(metric, view)


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A part of a run's answers."""

    values: Mapping[str, Any]

    @property
    def filter(self) -> Filter:
        """Which answers."""
        return Filter(
            benchmark=self.values["benchmark"],
            problem=self.values["problem"],
            text=self.values["text"],
            correct=self._flag("correct"),
            truncated=self._flag("truncated"),
            error=self._flag("error"),
            changed=self._flag("changed"),
        )

    def _flag(self, name: str) -> bool | None:
        return None if self.values[name] == "" else self.values[name] == "yes"

    @property
    def beside(self) -> str:
        """Key of another run to show beside, or empty."""
        return str(self.values["beside"])

    @property
    def page(self) -> int:
        """From 1."""
        return int(self.values["page"])

    def address(self, **changes: Any) -> str:
        """Return the query that asks the same but for some values."""
        return query({**self.values, **changes}, {"page": 1})


def sample_question(  # noqa: PLR0917 (FastAPI passes by keyword)
    benchmark: Text = "",
    problem: Text = "",
    correct: Choice = "",
    truncated: Choice = "",
    error: Choice = "",
    text: Text = "",
    beside: MaybeRun = "",
    changed: Choice = "",
    page: PageNumber = 1,
) -> SampleQuestion:
    """Read which answers are asked for."""
    return SampleQuestion(
        {
            "benchmark": benchmark,
            "problem": problem,
            "correct": correct,
            "truncated": truncated,
            "error": error,
            "text": text,
            "beside": beside,
            "changed": changed,
            "page": page,
        }
    )


def query(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the query of an address, without what is empty or the default anyway."""
    said: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            said += [(name, one) for one in value]
        elif value not in ("", None, defaults.get(name)):
            said.append((name, value))
    return f"?{urlencode(said)}" if said else "?"


AskedBoard = Annotated[BoardQuestion, Depends(board_question)]
AskedSamples = Annotated[SampleQuestion, Depends(sample_question)]
