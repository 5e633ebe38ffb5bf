"""What is decided about a run before anything is staged, and the worker's orders that follow."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nightshard.core.errors import UserError
from nightshard.core.fingerprint import ModelDescription, fingerprint, fingerprint_content
from nightshard.core.run_params import RunParams, model_label

CONTRACT_VERSION = 2
"""Version of the file contract with the worker (``docs/architecture.md``)."""

FLUSH_ROWS = 32
FLUSH_SECONDS = 10.0
PROGRESS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A checked evaluation: plain JSON, so that it can travel between tasks.

    Attributes:
        run_key: names the run everywhere.
        params: what the user asked for.
        model: what the cluster said of the model.
        engine: the engine section of ``spec.json``.
        num_shards: array elements wanted; fewer are used when most answers exist.
        max_job_minutes: time limit of one element.
        worker: the staged worker, a path on the cluster.
        started_at: start of the DAG run, ISO 8601 with a zone.
        dag_run_id: Airflow's id.
        balance: ``steal``, or ``static`` where every shard keeps to its own requests.
    """

    run_key: str
    params: RunParams
    model: ModelDescription
    engine: Mapping[str, Any]
    num_shards: int
    max_job_minutes: int
    worker: str
    started_at: str
    dag_run_id: str
    balance: str = "steal"

    @property
    def fingerprint(self) -> str:
        """Id of everything outside the requests that can change an answer."""
        return fingerprint(self.model, self.engine, self.params.chat_template_args)

    @property
    def fingerprint_content(self) -> dict[str, Any]:
        """What the fingerprint is the id of."""
        return fingerprint_content(self.model, self.engine, self.params.chat_template_args)

    @property
    def started(self) -> datetime:
        """Start of the DAG run."""
        return datetime.fromisoformat(self.started_at)

    @property
    def model_name(self) -> str:
        """Name for people, and in the database: ``base+adapter`` where there is an adapter."""
        names = [self.params.model, *([self.params.adapter] if self.params.adapter else [])]
        return "+".join(map(model_label, names))

    @property
    def model_revision(self) -> str:
        """The weights' revision, with the adapter's behind it."""
        adapter = self.model.adapter
        return f"{self.model.revision}+{adapter['revision']}" if adapter else self.model.revision

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "params": self.params.model_dump(mode="json"),
            "model": dataclasses.asdict(self.model),
            "engine": dict(self.engine),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "RunPlan":
        """Build from :meth:`to_dict`'s form."""
        return cls(
            **{
                **value,
                "params": RunParams.model_validate(value["params"]),
                "model": ModelDescription(**value["model"]),
            }
        )

    def spec(self, world_size: int) -> dict[str, Any]:
        """Render ``spec.json`` for this many shards."""
        return {
            "contract_version": CONTRACT_VERSION,
            "run_key": self.run_key,
            "fingerprint": self.fingerprint,
            "world_size": world_size,
            "model": {
                "name": self.model_name,
                "path": self.model.path,
                "revision": self.model_revision,
                **self._adapter(),
            },
            "engine": {**self.engine, **({"logprobs": True} if self.params.logprobs else {})},
            "chat_template_args": dict(self.params.chat_template_args),
            "balance": self.balance,
            "flush": {"rows": FLUSH_ROWS, "seconds": FLUSH_SECONDS},
            "progress_seconds": PROGRESS_SECONDS,
        }

    def _adapter(self) -> dict[str, Any]:
        adapter = self.model.adapter
        if adapter is None or self.params.adapter is None:
            return {}
        return {"adapter": {"name": model_label(self.params.adapter), "path": adapter["path"]}}


def check_description(model: ModelDescription) -> None:
    """Refuse a worker that speaks another contract.

    Raises:
        UserError: it does.
    """
    if model.contract_version != CONTRACT_VERSION:
        raise UserError(
            f"The shard worker on the cluster speaks contract {model.contract_version} and this "
            f"control plane {CONTRACT_VERSION}; upgrade the older one."
        )


def choose_num_shards(asked: int | None, default: int, maximum: int | None) -> int:
    """Choose how many shards to cut, as far as that is known before the questions are.

    Raises:
        UserError: more than the cluster's profile allows.
    """
    chosen = asked if asked is not None else default
    if maximum is not None and chosen > maximum:
        raise UserError(
            f"{chosen} shards were asked for, but the cluster's profile allows {maximum}; ask for "
            "fewer, or raise limits.max_shards in the profile."
        )
    return chosen


def choose_job_minutes(asked: float | None, default: float, maximum: float | None) -> int:
    """Choose the time limit of one array element, in whole minutes (Slurm's own resolution).

    Raises:
        UserError: more than the cluster's profile allows.
    """
    hours = asked if asked is not None else default
    if maximum is not None and hours > maximum:
        raise UserError(
            f"{hours:g} job hours were asked for, but the cluster's profile allows {maximum:g}; "
            "ask for fewer, or raise limits.max_job_hours in the profile."
        )
    return max(1, round(hours * 60))
