"""The plain values that go into the results database and come out of it."""

import dataclasses
import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A checkpoint.

    Attributes:
        name: what people call it, usually the Hub id.
        revision: Hub commit, or a digest of the files for a plain folder.
        path: where the weights lie on the cluster.
        base_model: the model that training started from.
        family: what the checkpoints of one training share
            (:func:`nightshard.core.checkpoints.checkpoint_of`).
        step: training step of the checkpoint.
        weights_bytes: size of the weight files.
        training_metadata: anything else that training knows, as JSON.
    """

    name: str
    revision: str
    path: str
    base_model: str | None = None
    family: str | None = None
    step: int | None = None
    weights_bytes: int | None = None
    training_metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """One attempt at one shard; None stands for what is not known (yet).

    Attributes:
        rank: 0-based shard number.
        attempt: 1-based.
        state: Slurm's last state of the array element, for example ``COMPLETED``.
        cause: why the attempt failed.
        job_id: Slurm job id of this element; ``array_job_id`` is the array's.
        node: host that ran it; ``gpu``: name of its GPU.
        rows: answers written; ``errors``: those among them that hold an error.
        prompt_tokens: of all its rows; ``output_tokens`` likewise.
        import_s: seconds of importing the engine; ``load_s`` of loading the weights;
            ``generate_s`` of generating; ``total_s`` of all.
        gpu_seconds: seconds times GPUs held; ``energy_j`` what these drew, in joules.
        started_at: aware time; ``finished_at`` likewise.
    """

    rank: int
    attempt: int
    state: str
    cause: str | None = None
    job_id: str | None = None
    array_job_id: str | None = None
    node: str | None = None
    gpu: str | None = None
    rows: int | None = None
    errors: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    import_s: float | None = None
    load_s: float | None = None
    generate_s: float | None = None
    total_s: float | None = None
    gpu_seconds: float | None = None
    energy_j: float | None = None
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None

    @classmethod
    def from_manifest(
        cls, manifest: Mapping[str, Any], *, state: str = "COMPLETED", gpus: int = 1
    ) -> "ShardRecord":
        """Build from a valid shard manifest.

        Args:
            manifest: in the form of the contract's ``manifest.schema.json``.
            state: what Slurm says of the element.
            gpus: GPUs that the element held, for ``gpu_seconds``; with no GPU named in the
                manifest ``gpu_seconds`` is 0.
        """
        timings = manifest["timings"]
        slurm = manifest["slurm"]
        return cls(
            rank=manifest["rank"],
            attempt=manifest["attempt"],
            state=state,
            job_id=slurm["job_id"],
            array_job_id=slurm["array_job_id"],
            node=manifest["node"],
            gpu=manifest["gpu"],
            rows=manifest["rows"],
            errors=manifest["errors"],
            prompt_tokens=manifest["prompt_tokens"],
            output_tokens=manifest["output_tokens"],
            import_s=timings["import_s"],
            load_s=timings["load_s"],
            generate_s=timings["generate_s"],
            total_s=timings["total_s"],
            gpu_seconds=timings["total_s"] * gpus if manifest["gpu"] is not None else 0.0,
            energy_j=manifest.get("telemetry", {}).get("energy_j"),
            started_at=_instant(manifest["started_at"]),
            finished_at=_instant(manifest["finished_at"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """How one attempt at one shard ended, well or not; None stands for what is not known.

    Attributes:
        rank: 0-based shard number.
        attempt: 1-based.
        state: the cause of the end, for example ``preempted`` or ``ended_well``.
        job_id: Slurm's id of the array element, ``57_3``.
        exit_code: of the worker.
        node: host or hosts that ran it.
        elapsed_s: Slurm's run time in seconds.
        gpus: GPUs that it held.
        done: answers of the shard on disk when it ended, those of earlier attempts included.
        message: one sentence on the end.
        decision: what was done next, for example ``again without node2``.
        ended_at: aware time of the control plane's clock.
        gpu_seconds: ``elapsed_s`` times ``gpus``; derived.
    """

    rank: int
    attempt: int
    state: str
    job_id: str
    exit_code: int | None = None
    node: str | None = None
    elapsed_s: int | None = None
    gpus: int = 0
    done: int = 0
    message: str = ""
    decision: str = ""
    ended_at: datetime.datetime
    gpu_seconds: int | None = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        spent = None if self.elapsed_s is None else self.elapsed_s * self.gpus
        object.__setattr__(self, "gpu_seconds", spent)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AttemptRecord":
        """Build from the JSON form, ``ended_at`` as ISO text; fields of no interest are left out.

        Raises:
            TypeError: a field without a default is missing.
        """
        names = {field.name for field in dataclasses.fields(cls) if field.init}
        known = {name: item for name, item in value.items() if name in names}
        if isinstance(known.get("ended_at"), str):
            known["ended_at"] = _instant(known["ended_at"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class GpuTime:
    """GPU seconds of a run's attempts.

    Attributes:
        total: of all attempts whose run time is known.
        wasted: of those among them that added no answer to what was on disk before.
        unknown: number of attempts whose run time is not known.
    """

    total: int
    wasted: int
    unknown: int


def gpu_time(attempts: Iterable[AttemptRecord]) -> GpuTime:
    """Add up what attempts cost, and what of it brought nothing.

    An attempt that was cut off has not wasted what it wrote: the next one goes on from there.
    """
    total = wasted = unknown = 0
    done: dict[int, int] = {}
    for one in sorted(attempts, key=lambda one: (one.rank, one.attempt)):
        if one.gpu_seconds is None:
            unknown += 1
        else:
            total += one.gpu_seconds
            wasted += one.gpu_seconds if one.done <= done.get(one.rank, 0) else 0
        done[one.rank] = max(done.get(one.rank, 0), one.done)
    return GpuTime(total, wasted, unknown)


def _instant(text: str) -> datetime.datetime:
    value = datetime.datetime.fromisoformat(text)
    return value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRecord:
    """One score.

    Attributes:
        benchmark: registry name; ``benchmark_version`` says which questions and prompts.
        metric: for example ``accuracy``.
        value: finite.
        subset: part of the benchmark, the empty string for all of it.
        stderr: standard error of ``value``.
        ci_low: lower end of the 95 % interval; ``ci_high`` the upper end.
        n: problems that the value rests on.
        coverage: share of the expected answers that exist, in [0, 1].
        partial: the user accepted a score with answers missing.
        judge_version: which judge said so; another version makes another row.

    Raises:
        ValueError: ``value`` is not finite or ``coverage`` lies outside [0, 1].
    """

    benchmark: str
    benchmark_version: str
    metric: str
    value: float
    n: int
    coverage: float
    judge_version: str
    subset: str = ""
    stderr: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.benchmark} {self.metric} is {self.value}, not a number.")
        if not 0 <= self.coverage <= 1:
            raise ValueError(f"Coverage {self.coverage} of {self.benchmark} is not in [0, 1].")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One evaluation of one model, with its shard attempts and scores.

    Attributes:
        run_key: unique among all runs.
        model: the checkpoint.
        fingerprint: id of everything beyond a request that can change an answer;
            ``fingerprint_content`` is what that id hashes.
        cluster: name of the profile.
        status: for example ``scored``.
        num_shards: array elements of the submission, 0 when every answer existed already.
        requests: answers that the run needs; ``reused``: those that earlier runs had given.
        params: exactly what the user asked for.
        spec: the staged ``spec.json``.
        dag_id: Airflow's DAG; ``dag_run_id``: Airflow's id of the run.
        answers_url: the merged answers, a path or fsspec URL of a parquet file.
        started_at: aware time; ``finished_at`` likewise; ``wall_seconds`` from end to end.
        shards: attempts that gave all answers of their shard, ordered by rank and attempt.
        attempts: how each attempt ended, well or not, in the same order.
        metrics: scores, in the order in which they shall show.
        gate: what a gate said (:meth:`nightshard.results.gate.Ruling.said`).
    """

    run_key: str
    model: ModelRecord
    fingerprint: str
    cluster: str
    status: str
    num_shards: int
    requests: int
    reused: int = 0
    fingerprint_content: Mapping[str, Any] | None = None
    params: Mapping[str, Any] | None = None
    spec: Mapping[str, Any] | None = None
    dag_id: str | None = None
    dag_run_id: str | None = None
    answers_url: str | None = None
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    wall_seconds: float | None = None
    gate: Mapping[str, Any] | None = None
    shards: tuple[ShardRecord, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    metrics: tuple[MetricRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One line of a table of scores: a metric with the run and the model it belongs to.

    ``when`` is the end of the run, or its start or first record where the end is not known.
    """

    model: str
    revision: str
    step: int | None
    run_key: str
    status: str
    num_shards: int
    when: datetime.datetime
    score: MetricRecord

    def to_dict(self) -> dict[str, Any]:
        """Return a flat JSON form: the metric's fields beside the run's."""
        own = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "score"
        }
        return {**own, "when": self.when.isoformat(), **dataclasses.asdict(self.score)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One line of a list of runs; ``when`` as in :class:`ScoreRow`."""

    run_key: str
    model: str
    revision: str
    cluster: str
    status: str
    num_shards: int
    requests: int
    reused: int
    when: datetime.datetime
    wall_seconds: float | None


@dataclass(frozen=True, slots=True, order=True)
class ShardKey:
    """Which attempt gave an answer: three columns of every answers parquet."""

    run_key: str
    rank: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TracedShard:
    """An attempt that gave answers to a run.

    Attributes:
        run_key: the run that the attempt belongs to; another one for reused answers.
        shard: what is known of the attempt.
        answers: how many of the run's answers it gave, None when the answers were not read.
    """

    run_key: str
    shard: ShardRecord
    answers: int | None


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a run's scores come from: score, run, fingerprint, answers, shards, Slurm jobs.

    Attributes:
        run: the run with its own shard attempts and all its scores.
        shards: own attempts first, then those of other runs whose answers were reused.
        unknown: attempts that gave answers and of which the database knows nothing.
    """

    run: RunRecord
    shards: tuple[TracedShard, ...]
    unknown: tuple[ShardKey, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return json_form(dataclasses.asdict(self))  # type: ignore[no-any-return]


def json_form(value: Any) -> Any:
    """Turn times into ISO text and tuples into lists, all the way down."""
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: json_form(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_form(item) for item in value]
    return value
