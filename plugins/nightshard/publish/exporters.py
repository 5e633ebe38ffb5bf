"""A run's scores for experiment trackers: used where the tracker's own package is installed."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from nightshard.results.records import MetricRecord, RunRecord


class Exporter(Protocol):
    """Brings a run's scores to a tracker."""

    def export(self, run: RunRecord) -> str:
        """Bring them there, so that a second time adds nothing; return a sentence on it."""
        ...


class MlflowExporter:
    """MLflow, where its package and ``MLFLOW_TRACKING_URI`` are there.

    A family of checkpoints is an experiment, a run of ours a run there, found by its tag.
    """

    TAG = "nightshard.run_key"

    def export(self, run: RunRecord) -> str:
        """See :class:`Exporter`."""
        from mlflow import MlflowClient  # noqa: PLC0415 (an optional package)
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

        client = MlflowClient()
        name = f"nightshard/{run.model.family or run.model.name}"
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        found = client.search_runs([experiment], f"tags.`{self.TAG}` = '{run.run_key}'")
        if found:
            tracked = found[0].info.run_id
        else:
            tags = {self.TAG: run.run_key, "mlflow.runName": run.run_key}
            tracked = client.create_run(experiment, tags=tags).info.run_id
        at = int((run.finished_at or run.started_at).timestamp() * 1000)  # type: ignore[union-attr]
        step = run.model.step or 0
        client.log_batch(
            tracked,
            metrics=[Metric(key, value, at, step) for key, value in named_scores(run).items()],
            params=[] if found else [Param(key, value) for key, value in facts(run).items()],
            tags=[RunTag("nightshard.status", run.status)],
        )
        client.set_terminated(tracked)
        return f"MLflow: experiment {name}, run {tracked}"


class WandbExporter:
    """Weights & Biases, where its package and ``WANDB_PROJECT`` are there.

    The run's key is the id there, so that a second time goes on with the same run.
    """

    def export(self, run: RunRecord) -> str:
        """See :class:`Exporter`."""
        import wandb  # noqa: PLC0415 (an optional package)

        tracked = wandb.init(
            id=run.run_key,
            name=run.run_key,
            group=run.model.family or run.model.name,
            config=facts(run),
            resume="allow",
        )
        tracked.summary.update(named_scores(run))
        tracked.log({**named_scores(run), "training step": run.model.step or 0})
        tracked.finish()
        return f"Weights & Biases: run {run.run_key}"


def exporters(environ: Mapping[str, str] = os.environ) -> Iterator[Exporter]:
    """Yield an exporter for each tracker that is installed and set up."""
    if environ.get("MLFLOW_TRACKING_URI") and importlib.util.find_spec("mlflow"):
        yield MlflowExporter()
    if environ.get("WANDB_PROJECT") and importlib.util.find_spec("wandb"):
        yield WandbExporter()


def named_scores(run: RunRecord) -> dict[str, float]:
    """Return a run's scores by one name each, such as ``MATH500/accuracy``."""
    return {_name(one): one.value for one in run.metrics}


def _name(one: MetricRecord) -> str:
    parts = [one.benchmark, *([one.subset] if one.subset else []), one.metric]
    # MLflow takes no other characters.
    return "/".join(
        "".join(c if c.isalnum() or c in "_-. " else "_" for c in part) for part in parts
    )


def facts(run: RunRecord) -> dict[str, Any]:
    """Return what a run's scores rest on."""
    return {
        "model": run.model.name,
        "revision": run.model.revision,
        "fingerprint": run.fingerprint,
        "cluster": run.cluster,
        "judges": ", ".join(dict.fromkeys(one.judge_version for one in run.metrics)),
    }
