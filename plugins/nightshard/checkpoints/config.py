"""What a group wants to be evaluated every night: the file ``include/nightly.yaml``.

The DAG file reads it, so it needs nothing but pydantic and yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nightshard.clusters.marked_yaml import MarkedDocument, parse_marked
from nightshard.core.errors import UserError

DEFAULT_CAP = 4


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _SourceConfig(_Section):
    """What all sources have in common.

    ``evaluate`` are parameters of ``evaluate`` for what this source finds; ``priority`` orders the
    checkpoints of one night, the highest first.
    """

    evaluate: dict[str, Any] = Field(default_factory=dict)
    priority: int = 0


class HubSource(_SourceConfig):
    """New revisions of repositories on the Hub.

    ``author`` with ``pattern`` (``run7-*``), a ``collection``, or ``repos`` by name. Without
    ``revisions`` the main branch counts; with it each branch and tag that matches (``step-*``).
    """

    kind: Literal["hub"]
    author: str | None = None
    pattern: str = "*"
    collection: str | None = None
    repos: tuple[str, ...] = ()
    revisions: str | None = None

    @model_validator(mode="after")
    def _names_something(self) -> "HubSource":
        if sum(map(bool, (self.author, self.collection, self.repos))) != 1:
            raise ValueError("name one of author, collection and repos")
        return self


class FolderSource(_SourceConfig):
    """Folders on a cluster.

    A folder is a checkpoint when its ``marker`` file is there or, without one, when configuration,
    tokenizer and all weight files are, and none has changed for ``stable_minutes``.
    """

    kind: Literal["folder"]
    glob: Annotated[str, Field(pattern=r"^/")]
    cluster: str | None = None
    marker: str | None = None
    stable_minutes: Annotated[float, Field(ge=0)] = 10


class TableSource(_SourceConfig):
    """Rows of a CSV file or of a database's table, with ``model`` and ``appeared_at``.

    ``revision`` and any parameter of ``evaluate`` may be columns too.
    """

    kind: Literal["table"]
    file: Path | None = None
    url: str | None = None
    table: str | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "TableSource":
        if (self.file is None) == (self.url is None) or bool(self.url) != bool(self.table):
            raise ValueError("name a file, or a url with a table")
        return self


SourceConfig = Annotated[HubSource | FolderSource | TableSource, Field(discriminator="kind")]


class NightlyConfig(_Section):
    """The whole file.

    Attributes:
        schedule: a cron expression, None for by hand only.
        timezone: of the schedule.
        evaluate: parameters of ``evaluate`` for every checkpoint.
        caps: most runs at the same time, by cluster; :data:`DEFAULT_CAP` where it is not said.
        sources: by name.
    """

    schedule: str | None = "0 1 * * *"
    timezone: str = "UTC"
    evaluate: dict[str, Any] = Field(default_factory=dict)
    caps: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    sources: dict[str, SourceConfig] = Field(default_factory=dict)

    def asked_of(self, name: str) -> dict[str, Any]:
        """Return the parameters with which a source's checkpoints are evaluated."""
        source = self.sources[name]
        folder = isinstance(source, FolderSource) and source.cluster
        return {**self.evaluate, **({"cluster": folder} if folder else {}), **source.evaluate}

    def caps_by_cluster(self) -> dict[str, int]:
        """Return each cluster that evaluations may go to, with its cap."""
        named = {str(self.asked_of(name)["cluster"]) for name in self.sources}
        return {name: self.caps.get(name, DEFAULT_CAP) for name in sorted({*named, *self.caps})}


@dataclass(frozen=True, slots=True)
class Nightly:
    """The file, and where it lies.

    Attributes:
        file: its path.
        config: None where it is not there.
    """

    file: Path
    config: NightlyConfig | None

    def required(self) -> NightlyConfig:
        """Return the configuration.

        Raises:
            UserError: there is none.
        """
        if self.config is None:
            raise UserError(
                f"There is no {self.file}, so no source of checkpoints is known; copy "
                "include/nightly.example.yaml there and change it."
            )
        return self.config


def read_nightly(file: Path, environ: Mapping[str, str]) -> Nightly:
    """Read the file; it need not exist.

    Raises:
        UserError: one sentence that names file, line and key.
    """
    if not file.exists():
        return Nightly(file, None)
    document = parse_marked(file.read_text("utf-8"), str(file), environ)
    try:
        config = NightlyConfig.model_validate(document.value)
    except ValidationError as error:
        raise _sentence(document, error) from None
    for name in config.sources:
        if not isinstance(config.asked_of(name).get("cluster"), str):
            raise document.error(
                ("sources", name),
                f"no cluster is named for the source {name}; write evaluate: {{cluster: NAME}}.",
            )
    return Nightly(file, config)


def _sentence(document: MarkedDocument, error: ValidationError) -> UserError:
    first = error.errors()[0]
    # Pydantic puts the kind of a source between its name and its keys.
    path = tuple(part for part in first["loc"] if part not in {"hub", "folder", "table"})
    key = ".".join(map(str, path)) or "the file"
    match first["type"]:
        case "extra_forbidden":
            what = f"there is no key {key}; remove it or check its spelling."
        case "missing":
            what = f"{key} is missing; add it."
        case "value_error":
            what = f"{key} cannot be used; {first['ctx']['error']}."
        case _:
            message = first["msg"][:1].lower() + first["msg"][1:]
            what = f"{key} cannot be used: {message}."
    return document.error(path, what)
