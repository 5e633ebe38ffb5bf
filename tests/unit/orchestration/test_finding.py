"""Which evaluations a night starts, and what is done with a run that is there already."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DagRunState
from airflow.sdk.exceptions import AirflowFailException, DagRunTriggerException, TaskDeferred

from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.orchestration.evaluations import EvaluateCheckpointOperator
from nightshard.orchestration.params import evaluate_form
from nightshard.orchestration.steps import finding

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 10, 1, tzinfo=UTC)
END = START + timedelta(days=1)

NIGHTLY = """
evaluate: {cluster: one, preset: math}
sources:
  a: {kind: table, file: FOLDER/a.csv}
  b: {kind: table, file: FOLDER/b.csv, priority: 5, evaluate: {cluster: two, limit: 3}}
"""


@pytest.fixture(autouse=True)
def nightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "nightly.yaml"
    file.write_text(NIGHTLY.replace("FOLDER", str(tmp_path)))
    rows = "model,appeared_at\norg/late,2026-01-10T20:00Z\norg/early,2026-01-10T02:00Z\n"
    (tmp_path / "a.csv").write_text(rows)
    (tmp_path / "b.csv").write_text("model,appeared_at\norg/b,2026-01-10T03:00Z\n")
    monkeypatch.setenv("NIGHTSHARD_NIGHTLY", str(file))
    return file


def interval() -> finding.Interval:
    return finding.interval_asked(None, None, START, END)


def everything() -> list[dict[str, Any]]:
    return [one for name in ("a", "b") for one in finding.find(name, interval())]


def test_each_cluster_gets_its_own_checkpoints_in_order() -> None:
    one, two = (finding.choose(everything(), cluster, "nightly/n") for cluster in ("one", "two"))
    assert [run["conf"]["model"] for run in one] == ["org/early", "org/late"]
    assert [run["conf"] for run in two] == [
        {
            "model": "org/b",
            "revision": None,
            "asked_by": "nightly/n",
            "cluster": "two",
            "preset": "math",
            "limit": 3,
        }
    ]


def test_what_two_sources_have_is_evaluated_once() -> None:
    found = finding.find("a", interval())
    runs = finding.choose([*found, *found], "one", "nightly/n")
    assert len(runs) == len({run["trigger_run_id"] for run in runs}) == 2


def test_by_hand_the_last_day_counts_or_what_was_typed() -> None:
    now = finding.interval_asked(None, None, None, None)
    assert now.end - now.start == timedelta(days=1)
    typed = finding.interval_asked("2026-01-01", "2026-01-03T12:00Z", START, END)
    assert (typed.start, typed.end) == (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 3, 12, tzinfo=UTC),
    )
    only_until = finding.interval_asked(None, "2026-01-03", START, END)
    assert only_until.start == datetime(2026, 1, 2, tzinfo=UTC)
    for since, until, says in (
        ("2026-01-03", "2026-01-01", "must lie before until"),
        ("soon", None, "since is 'soon'"),
    ):
        with pytest.raises(UserError, match=says):
            finding.interval_asked(since, until, None, None)


def test_what_is_announced_is_evaluated_as_the_group_wants() -> None:
    extras = [{"model": "/runs/x/checkpoint-1", "limit": 8, "from_rest_api": True}]
    (run,) = finding.choose_announced(extras, "one", "arrivals/a")
    assert run["conf"]["preset"] == "math"
    assert run["conf"]["limit"] == 8
    assert "from_rest_api" not in run["conf"]
    assert finding.choose_announced(extras, "two", "arrivals/a") == []
    other = finding.choose_announced([{**extras[0], "version": "2"}], "one", "arrivals/a")
    assert other[0]["trigger_run_id"] != run["trigger_run_id"]
    with pytest.raises(UserError, match="announces no model"):
        finding.choose_announced([{"limit": 8}], "one", "arrivals/a")


class Ti:
    """What an operator asks of its task instance."""

    def __init__(self, state: DagRunState | None) -> None:
        self.state = state
        self.pushed: dict[str, Any] = {}

    def get_dr_count(self, dag_id: str, run_ids: list[str]) -> int:
        return int(self.state is not None)

    def get_dagrun_state(self, dag_id: str, run_id: str) -> DagRunState:
        assert self.state is not None
        return self.state

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def execute(state: DagRunState | None, conf: dict[str, Any] | None = None) -> Ti:
    good = {"model": "org/{{ x }}", "tasks": ["Starter"], "cluster": "one", "num_shards": "auto"}
    ti = Ti(state)
    EvaluateCheckpointOperator(
        task_id="evaluate", conf=conf or good, trigger_run_id="checkpoint__x-1"
    ).execute({"ti": ti, "task_instance": ti})
    return ti


def test_a_run_that_succeeded_is_left_as_it_is() -> None:
    assert execute(DagRunState.SUCCESS).pushed == {"trigger_run_id": "checkpoint__x-1"}


@pytest.mark.parametrize("state", [DagRunState.QUEUED, DagRunState.RUNNING])
def test_a_run_that_goes_on_is_waited_for(state: DagRunState) -> None:
    with pytest.raises(TaskDeferred) as caught:
        execute(state)
    assert caught.value.trigger.run_ids == ["checkpoint__x-1"]


@pytest.mark.parametrize(("state", "reset"), [(None, False), (DagRunState.FAILED, True)])
def test_a_new_run_is_started_and_a_failed_one_cleared(
    state: DagRunState | None, reset: bool
) -> None:
    with pytest.raises(DagRunTriggerException) as caught:
        execute(state)
    asked = caught.value
    assert (asked.dag_run_id, asked.reset_dag_run, asked.deferrable) == (
        *("checkpoint__x-1", reset, True),
    )
    # What people write is no template, and it is what the form of `evaluate` takes.
    assert asked.conf["model"] == "org/{{ x }}"
    for name, param in evaluate_form(Settings.from_env({})).items():
        if name != "cluster":  # which is none of this project's
            param.resolve(asked.conf[name])


def test_parameters_that_cannot_be_used_start_nothing() -> None:
    with pytest.raises(
        AirflowFailException, match="checkpoint__x-1: There is no parameter 'modle'"
    ):
        execute(None, {"modle": "x", "model": "x", "tasks": ["Starter"], "cluster": "one"})


def test_a_run_that_another_task_starts_in_the_same_moment_fails_nobody() -> None:
    with pytest.raises(DagRunTriggerException) as caught:
        execute(None)
    # Airflow then skips the task instead of failing it.
    assert caught.value.skip_when_already_exists


def test_a_failed_evaluation_fails_its_task_with_a_sentence() -> None:
    operator = EvaluateCheckpointOperator(task_id="evaluate", conf={}, trigger_run_id="r")
    operator.execute_complete({}, ("trigger", {"run_ids": ["r"], "r": "success"}))
    with pytest.raises(AirflowFailException, match="The evaluation r failed; its own page says"):
        operator.execute_complete({}, ("trigger", {"run_ids": ["r"], "r": "failed"}))
