"""A run's scores in the trackers that a group has: their real packages, on this machine."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.recorded import recorded_run

from nightshard.publish.exporters import MlflowExporter, WandbExporter, exporters, named_scores

pytestmark = pytest.mark.unit

RUN = recorded_run("run-1", model="org/a", day=1, value=0.75)
RUN = replace(RUN, model=replace(RUN.model, family="run7", step=500))


def test_mlflow_gets_a_run_once_with_its_scores_at_their_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tmp_path.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for _ in range(2):
        assert "nightshard/run7" in MlflowExporter().export(RUN)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("nightshard/run7")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.data.metrics == {"MATH500/accuracy": 0.75, "MATH500/Algebra/accuracy": 0.75}
    assert tracked.data.params["revision"] == "main"
    assert tracked.data.tags["nightshard.run_key"] == "run-1"
    assert tracked.info.status == "FINISHED"
    steps = {one.step for one in client.get_metric_history(tracked.info.run_id, "MATH500/accuracy")}
    assert steps == {500}


def test_wandb_gets_a_run_with_its_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_PROJECT", "evaluation")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert "run-1" in WandbExporter().export(RUN)
    wandb.teardown()  # its own process writes the file, and ends here
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-run-1")
    written = b"".join(path.read_bytes() for path in folder.glob("*.wandb"))
    assert b"MATH500/accuracy" in written


def test_a_tracker_is_used_only_where_it_is_set_up() -> None:
    assert list(exporters({})) == []
    known = exporters({"MLFLOW_TRACKING_URI": "x", "WANDB_PROJECT": "y"})
    assert [type(one) for one in known] == [MlflowExporter, WandbExporter]


def test_a_benchmarks_name_becomes_one_that_trackers_take() -> None:
    odd = replace(RUN.metrics[0], benchmark="lm-eval:gsm8k", subset="")
    assert list(named_scores(replace(RUN, metrics=(odd,)))) == ["lm-eval_gsm8k/accuracy"]
