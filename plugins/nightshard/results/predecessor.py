"""Scores that Evalchemy left: its results files and its database, as runs of ours.

Its scores stay apart from ours: they have its name as judge and as version of the questions, and
are marked as partial, since its gate let a run pass with 90 % of the answers and counted the others
as wrong.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nightshard.benchmarks import registry
from nightshard.core.checkpoints import checkpoint_of
from nightshard.core.errors import UserError
from nightshard.core.run_params import model_label, model_slug
from nightshard.results.records import MetricRecord, ModelRecord, RunRecord

JUDGE = "evalchemy"
STATUS = "imported"
LEAST_COVERAGE = 0.9
"""What its gate asked for."""

_ERRORS = ("std_err", "stderr")
_ABOUT = ("num_", "run_stats", "alias", "solved_avg", "examples", "samples")
"""Beginnings of what stands among its scores and is none."""


def run_from_results(text: str, name: str) -> RunRecord:
    """Turn a results file into a run.

    Args:
        text: its content.
        name: of the file, for a sentence.

    Raises:
        UserError: it is no results file, or has no scores.
    """
    try:
        found = json.loads(text)
        results = dict(found["results"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{name} is no results file of Evalchemy: it has no 'results'.") from None
    metrics = [
        metric
        for task, scores in results.items()
        if isinstance(scores, Mapping)
        for metric in _metrics(task, scores)
    ]
    if not metrics:
        raise UserError(f"{name} holds no scores.")
    model = _model_of(found)
    when = _when(found.get("date"))
    return RunRecord(
        run_key=_key(model, hashlib.sha256(text.encode()).hexdigest()),
        model=_checkpoint(model, str(found.get("model_sha") or "unknown")),
        fingerprint=JUDGE,
        cluster="unknown",
        status=STATUS,
        num_shards=0,
        requests=sum(metric.n for metric in metrics if metric.metric == "accuracy"),
        params={"results": name, "git_hash": found.get("git_hash")},
        finished_at=when,
        metrics=tuple(metrics),
    )


def runs_from_database(url: str) -> Iterator[RunRecord]:
    """Yield the runs of its database: the scores of a model that were written in one hour.

    Where it judged again and wrote a score twice, the later one counts.

    Raises:
        UserError: the database cannot be read, or is not Evalchemy's.
    """
    try:
        engine = sa.create_engine(url)
        tables = sa.MetaData()
        tables.reflect(engine, only=["models", "evalsettings", "evalresults"])
        models, settings, results = (
            tables.tables[name] for name in ("models", "evalsettings", "evalresults")
        )
        statement = (
            sa.select(
                models.c.id.label("model_id"),
                models.c.name.label("model"),
                models.c.weights_location,
                models.c.training_parameters,
                settings.c.name.label("score_name"),
                results.c.score,
                results.c.creation_time,
                results.c.completions_location,
            )
            .select_from(results)
            .join(models, results.c.model_id == models.c.id)
            .join(settings, results.c.eval_setting_id == settings.c.id)
            .order_by(results.c.creation_time)
        )
        with engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(statement).mappings()]
    except (sa.exc.SQLAlchemyError, KeyError, AttributeError, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"Evalchemy's database cannot be read ({reason}).") from None
    groups: dict[tuple[str, datetime], list[dict[str, Any]]] = {}
    for row in rows:
        when = _aware(row["creation_time"])
        hour = when.replace(minute=0, second=0, microsecond=0)
        groups.setdefault((str(row["model_id"]), hour), []).append({**row, "creation_time": when})
    for (model_id, hour), its in groups.items():
        run = _run_of(model_id, hour, its)
        if run is not None:
            yield run


def _run_of(model_id: str, hour: datetime, rows: list[dict[str, Any]]) -> RunRecord | None:
    scores: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["score"] is not None:
            task, metric = split_name(row["score_name"])
            scores.setdefault(task, {})[metric] = row["score"]
    metrics = tuple(one for task, its in scores.items() for one in _metrics(task, its))
    if not metrics:
        return None
    last = rows[-1]
    weights = last["weights_location"] or last["model"]
    return RunRecord(
        run_key=_key(last["model"], f"{model_id} {hour.isoformat()}"),
        model=_checkpoint(last["model"], "unknown", weights, last["training_parameters"]),
        fingerprint=JUDGE,
        cluster="unknown",
        status=STATUS,
        num_shards=0,
        requests=0,
        params={"completions": sorted({one["completions_location"] or "" for one in rows})},
        finished_at=last["creation_time"],
        metrics=metrics,
    )


def split_name(name: str) -> tuple[str, str]:
    """Split a setting's name, ``AIME24_accuracy_avg``, into task and metric; pure."""
    known = [one for one in registry.names() if name.startswith(f"{one}_")]
    if known:
        task = max(known, key=len)
        return task, name[len(task) + 1 :]
    for mark in ("_accuracy", "_exact_match", "_acc", "_pass", "_score"):
        if mark in name:
            task, _, rest = name.partition(mark)
            return task, f"{mark[1:]}{rest}"
    task, _, metric = name.rpartition("_")
    return (task, metric) if task else (name, "score")


def _metrics(task: str, scores: Mapping[str, Any]) -> Iterator[MetricRecord]:
    benchmark = task if task in registry.names() else f"evalchemy:{task}"
    total = scores.get("num_total")
    problems = int(total) if isinstance(total, int | float) and math.isfinite(total) else 0
    for key, value in scores.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or key.startswith(_ABOUT):
            continue
        if any(mark in key for mark in _ERRORS):
            continue
        metric, subset = _metric_name(key)
        yield MetricRecord(
            benchmark=benchmark,
            benchmark_version=JUDGE,
            metric=metric,
            subset=subset,
            value=float(value),
            stderr=_error_of(key, scores),
            n=problems,
            coverage=LEAST_COVERAGE,
            partial=True,
            judge_version=JUDGE,
        )


def _metric_name(key: str) -> tuple[str, str]:
    """Turn ``accuracy_easy_avg`` into accuracy of the subset easy, and keep other names."""
    if key in ("accuracy", "accuracy_avg"):
        return "accuracy", ""
    if key.startswith("accuracy_"):
        return "accuracy", key.removeprefix("accuracy_").removesuffix("_avg")
    return key, ""


def _error_of(key: str, scores: Mapping[str, Any]) -> float | None:
    name, _, kind = key.partition(",")
    for other in (
        f"{key.removesuffix('_avg')}_std_err",
        f"{name}_stderr{',' if kind else ''}{kind}",
    ):
        value = scores.get(other)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _model_of(found: Mapping[str, Any]) -> str:
    arguments = str((found.get("config") or {}).get("model_args") or "")
    named = [
        part.partition("=")[2] for part in arguments.split(",") if part.startswith("pretrained=")
    ]
    return str(found.get("model_name") or (named[0] if named else "") or "unknown")


def _checkpoint(
    model: str, revision: str, path: str | None = None, training: Mapping[str, Any] | None = None
) -> ModelRecord:
    place = checkpoint_of(model)
    return ModelRecord(
        name=model_label(model),
        revision=f"evalchemy:{revision}",
        path=path or model,
        family=place.family,
        step=place.step,
        training_metadata=training or None,
    )


def _key(model: str, content: str) -> str:
    return f"evalchemy-{model_slug(model)}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def _when(value: Any) -> datetime | None:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    try:
        return _aware(datetime.fromisoformat(str(value)))
    except ValueError:
        return None


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def read_results(path: Path) -> RunRecord:
    """Read a results file.

    Raises:
        UserError: it cannot be read, or see :func:`run_from_results`.
    """
    try:
        return run_from_results(path.read_text("utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', error)}.") from None
