"""A checkpoint that a source has found, and the run that evaluates it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from nightshard.core.errors import NightshardError
from nightshard.core.hashing import content_id
from nightshard.core.run_params import model_slug

DIGEST = 8


class SourceError(NightshardError):
    """A source could not be asked, which is not the same as a source that has nothing new."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A span of time, its start included and its end not."""

    start: datetime
    end: datetime

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint.

    Attributes:
        model: a folder on the cluster or a Hub id.
        appeared: when it was complete.
        version: changes whenever its content does: a commit, or a digest of its files.
        revision: of a Hub id.
        params: parameters of its evaluation beside those of its source.
    """

    model: str
    appeared: datetime
    version: str
    revision: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "appeared": self.appeared.isoformat()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Found":
        """Build from :meth:`to_dict`'s form."""
        return cls(**{**value, "appeared": datetime.fromisoformat(value["appeared"])})


@dataclass(frozen=True, slots=True)
class Report:
    """What a source has in an interval.

    Attributes:
        found: complete checkpoints that appeared in it, the earliest first.
        remarks: sentences on what was left out, for example that it is not complete yet.
    """

    found: tuple[Found, ...]
    remarks: tuple[str, ...] = ()


class Source(Protocol):
    """Somewhere checkpoints appear."""

    def find(self, interval: Interval) -> Report:
        """Return the checkpoints that appeared in an interval.

        The same interval gives the same checkpoints whenever it is asked for, as long as they have
        not changed: a backfill relies on it.

        Raises:
            SourceError: it could not be asked; an empty report would look like a quiet night.
        """
        ...


def evaluation(found: Found, defaults: Mapping[str, Any], asked_by: str) -> dict[str, Any]:
    """Return the parameters of the run that evaluates a checkpoint.

    Args:
        found: the checkpoint.
        defaults: parameters of its source.
        asked_by: which run found it, ``<DAG id>/<run id>``.
    """
    named = {"model": found.model, "revision": found.revision, "asked_by": asked_by}
    return {**defaults, **found.params, **named}


def evaluation_run_id(found: Found, conf: Mapping[str, Any]) -> str:
    """Return Airflow's id for the run that evaluates a checkpoint.

    It follows from the checkpoint's content and from what is asked of it, so that two nights, a
    night and a backfill, or two tries of a task ask for one and the same run.

    Returns:
        For example ``checkpoint__run7-checkpoint-500-3f2a9c1b``.
    """
    asked = {name: value for name, value in conf.items() if name != "asked_by"}
    digest = content_id({"version": found.version, "asked": asked})[:DIGEST]
    return f"checkpoint__{model_slug(_label(found))}-{digest}"


def in_order(found: Iterable[tuple[int, Found]]) -> list[tuple[int, Found]]:
    """Order what several sources found: the higher priority first, then the earlier one."""
    return sorted(found, key=lambda one: (-one[0], one[1].appeared, one[1].model))


def as_utc(instant: datetime) -> datetime:
    """Return an instant with a zone; without one it is taken for UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _label(found: Found) -> str:
    # Of /runs/run7/checkpoint-500 the last part alone would not say which training it is.
    if found.model.startswith(("/", "~")):
        return "-".join(found.model.rstrip("/").split("/")[-2:])
    return f"{found.model}-{found.revision}" if found.revision else found.model
