"""What a person asks for: the parameters of one evaluation, checked."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from nightshard.core.errors import UserError
from nightshard.core.presets import PRESETS

MAX_MODEL_SLUG = 40
RUN_KEY_DIGEST = 6

AUTO_SHARDS = "auto"

NOT_SWEPT = frozenset({"num_shards", "optimise", "force", "gate", "publish", "dry_run", "asked_by"})
"""Parameters that a sweep over numbers of shards sets itself, or has no use for."""

_SENTENCES = {
    "model": "name a model: a folder on the cluster or a Hub id such as org/name",
    "tasks": "choose at least one benchmark",
    "cluster": "name a profile of include/clusters",
    "num_shards": "ask for at least 1 shard or for auto, or leave it empty for the cluster's "
    "default",
    "optimise": "choose efficiency, balanced or rush, or leave it empty",
    "max_job_hours": "give a number of hours above 0, or leave it empty for the cluster's default",
    "temperature": "give a number from 0 (greedy) to 10",
    "top_p": "give a number above 0 and at most 1",
    "max_tokens": "give a whole number of at least 1",
    "repeats": "give a whole number of at least 1",
    "seed": "give a whole number of at least 0",
    "limit": "give a whole number of at least 1, or leave it empty for all problems",
    "balance": "choose steal or static, or leave it empty for the cluster's default",
    "preset": f"choose one of {', '.join(PRESETS)}, or leave it empty",
    "publish": "choose no, folder or hub, or leave it empty for the Hub where it is set up",
    "gate": "name previous, best or a policy of include/gates",
    "chat_template_args": 'give a JSON object such as {"enable_thinking": false}, or none',
}


class RunParams(BaseModel):
    """Parameters of the DAG ``evaluate`` and of ``nightshard launch``.

    An optional value that is None means: as the benchmark or the cluster profile says.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False
    )

    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    adapter: str | None = None
    logprobs: bool = False
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    num_shards: Annotated[int, Field(ge=1)] | None = None
    optimise: Literal["efficiency", "balanced", "rush"] | None = None
    cluster: Annotated[str, Field(min_length=1)]
    max_job_hours: Annotated[float, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    repeats: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    system_prompt: str | None = None
    chat_template_args: Mapping[str, Any] = Field(default_factory=dict)
    balance: Literal["steal", "static"] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    source: Mapping[str, str] = Field(default_factory=dict)
    force: bool = False
    preset: str | None = None
    publish: Literal["no", "folder", "hub"] | None = None
    gate: str | None = None
    asked_by: str | None = None
    dry_run: bool = False

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, values: Any) -> Any:
        """Take benchmarks and limit from a preset; a limit that is given goes first."""
        preset = PRESETS.get(str(values.get("preset"))) if isinstance(values, Mapping) else None
        if preset is None:
            return values
        return {**values, "tasks": preset.tasks, "limit": values.get("limit") or preset.limit}

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_wish(cls, values: Any) -> Any:
        """Read ``num_shards: auto`` as what it means: no number, but something to optimise."""
        if isinstance(values, Mapping) and values.get("num_shards") == AUTO_SHARDS:
            optimise = values.get("optimise") or "balanced"
            return {**values, "num_shards": None, "optimise": optimise}
        return values

    @field_validator("preset", mode="after")
    @classmethod
    def _preset_is_known(cls, value: str | None) -> str | None:
        if value and value not in PRESETS:
            raise ValueError(value)
        return value or None

    @field_validator("source", "chat_template_args", mode="before")
    @classmethod
    def _none_is_an_empty_one(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("revision", "adapter", "system_prompt", "gate", "asked_by", mode="after")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("tasks", mode="after")
    @classmethod
    def _each_task_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task.strip() for task in value if task.strip()))

    @property
    def chooses_shards(self) -> bool:
        """Whether the number of shards follows from earlier runs."""
        return self.num_shards is None and self.optimise is not None

    def sampling_overrides(self) -> dict[str, Any]:
        """Return the sampling values that the user set, by name."""
        names = ("temperature", "top_p", "max_tokens")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def parse_run_params(values: Mapping[str, Any]) -> RunParams:
    """Check a form's or a command line's values.

    Raises:
        UserError: one sentence on the first value that cannot be used.
    """
    try:
        params = RunParams.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error)) from None
    if not params.tasks:
        raise UserError("tasks is empty; choose at least one benchmark.")
    if stray := sorted(set(params.source) - set(params.tasks)):
        raise UserError(
            f"source names {stray[0]}, which is not among the tasks; add it to tasks or remove it."
        )
    return params


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "parameters"
    if first["type"] == "extra_forbidden":
        return f"There is no parameter {name!r}; remove it or check its spelling."
    if first["type"] == "missing":
        return f"{name} is missing; {_SENTENCES.get(name, 'give a value')}."
    advice = _SENTENCES.get(name, first["msg"])
    return f"{name} is {first['input']!r}, which cannot be used; {advice}."


def split_revision(model: str) -> tuple[str, str | None]:
    """Split ``org/name@revision``; a folder is left as it is."""
    if model.startswith(("/", "~")) or "@" not in model:
        return model, None
    name, _, revision = model.partition("@")
    return name, revision


def model_label(model: str) -> str:
    """Return a model's name for people: the last part of a path, or the Hub id as it is."""
    return PurePath(model).name if model.startswith(("/", "~", ".")) else model


def model_slug(model: str) -> str:
    """Return a model's name as a part of a run's key: lower-case letters, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", model_label(model).lower()).strip("-")[:MAX_MODEL_SLUG]
    return slug.strip("-") or "model"


def run_key_digest(dag_run_id: str, deployment: str) -> str:
    """Return the end of a run's key, which tells runs of the same minute and model apart."""
    content = f"{deployment}\n{dag_run_id}"
    return hashlib.sha256(content.encode()).hexdigest()[:RUN_KEY_DIGEST]


def make_run_key(model: str, dag_run_id: str, started: datetime, deployment: str = "") -> str:
    """Name a run so that it can be a folder, a Slurm job name and a word in a sentence.

    The same DAG run always gets the same key, so a task's retry finds what the first try left. Two
    installations that share an account, where the same night has the same run id, get two.

    Args:
        model: as the user named it.
        dag_run_id: Airflow's id.
        started: when the run became due.
        deployment: id of this installation.

    Returns:
        For example ``20261124-0130-smollm2-135m-instruct-5f2a9c``: lower-case letters, digits and
        dashes only.
    """
    digest = run_key_digest(dag_run_id, deployment)
    return f"{started:%Y%m%d-%H%M}-{model_slug(model)}-{digest}"
