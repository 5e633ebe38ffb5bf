"""The files that a shard leaves on the cluster, read with suspicion.

They are the worker's half of the contract (its JSON Schemas say the same); what does not fit is
treated as not there, because a network file system can show half a file.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=0)]


class Document(BaseModel):
    """Base of all files of the contract."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def read(cls, text: str | bytes | None) -> Self | None:
        """Parse the file's text; None where it is absent, torn or not of this form."""
        if not text:
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


class Progress(Document):
    """``progress.json``: how far a shard is."""

    contract_version: Literal[2]
    rank: Count
    attempt: Annotated[int, Field(ge=1)]
    phase: Literal["starting", "loading", "generating", "writing", "done", "failed"]
    done: Count
    total: Count
    errors: Count
    output_tokens: Count
    tokens_per_s: Annotated[float, Field(ge=0)]
    node: str
    job_id: str | None
    updated_at: str
    message: str | None
    telemetry: dict[str, Any] = Field(default_factory=dict)


class Timings(Document):
    """Seconds of one attempt."""

    import_s: float
    load_s: float
    compile_s: float = 0.0
    generate_s: float
    total_s: float


class SlurmIds(Document):
    """By what Slurm knew the element that wrote a manifest."""

    job_id: str | None
    array_job_id: str | None
    array_task_id: str | None
    cluster: str | None


class Manifest(Document):
    """``shard-RRRRR-of-NNNNN.manifest.json``: says that a shard's answers are complete."""

    contract_version: Literal[2]
    run_key: str
    fingerprint: str
    rank: Count
    world_size: Annotated[int, Field(ge=1)]
    attempt: Annotated[int, Field(ge=1)]
    rows: Count
    errors: Count
    output_file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    prompt_tokens: Count
    output_tokens: Count
    timings: Timings
    gpu: str | None
    node: str
    slurm: SlurmIds
    blocks: list[str] | None = None
    telemetry: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str]
    started_at: str
    finished_at: str

    def fault(
        self, *, run_key: str, rank: int, world_size: int, rows: int, fingerprint: str
    ) -> str | None:
        """Say in what it disagrees with what was asked; None where it does not.

        A shard that claimed blocks may hold more or fewer rows than were planned for it, down to
        none; whether all answers of the run are there is seen when they are merged.
        """
        expected: dict[str, Any] = {
            "run_key": run_key,
            "rank": rank,
            "world_size": world_size,
            "rows": rows if self.blocks is None else self.rows,
            "fingerprint": fingerprint,
        }
        for name, value in expected.items():
            found = getattr(self, name)
            if found != value:
                return f"its manifest says {name} {found}, expected {value}"
        return None


class ExitRecord(Document):
    """``exit-aN``: the batch script's last act."""

    exit_code: int
    job_id: str


class RunIdentity(Document):
    """``run.json``: whose run a folder holds.

    Several installations of Nightshard may work for one account of a cluster. A job may be
    cancelled from outside its run only where its run's folder has this installation's id.

    Attributes:
        deployment: id of the installation.
        dag_id: Airflow's DAG.
        dag_run_id: Airflow's id of the run.
    """

    deployment: Annotated[str, Field(min_length=1)]
    dag_id: Annotated[str, Field(min_length=1)]
    dag_run_id: Annotated[str, Field(min_length=1)]

    def to_bytes(self) -> bytes:
        """Render the file."""
        return (json.dumps(self.model_dump(), sort_keys=True) + "\n").encode()


class Intent(Document):
    """``submission-aN.json``: what is about to be submitted, later what became of it.

    Attributes:
        name: job name, the key of the submission.
        tasks: number of shards.
        first_rank: first rank of array index 0.
        per_job: shards of one element.
        job_id: set once Slurm's answer is known.
        cluster: set on federated sites.
        rejected: Slurm's sentence where it refused.
    """

    name: str
    tasks: Annotated[int, Field(ge=1)]
    first_rank: Count = 0
    per_job: Annotated[int, Field(ge=1)] = 1
    job_id: str | None = None
    cluster: str | None = None
    rejected: str | None = None

    def to_bytes(self) -> bytes:
        """Render the file."""
        return (json.dumps(self.model_dump(), sort_keys=True) + "\n").encode()
