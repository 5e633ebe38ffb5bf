"""One run of ``evaluate`` for each thing that another DAG wants evaluated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.external_task import DagStateTrigger
from airflow.sdk.exceptions import AirflowFailException
from airflow.utils.state import DagRunState

from nightshard.core.errors import UserError
from nightshard.core.run_params import parse_run_params

if TYPE_CHECKING:
    from airflow.sdk import Context

EVALUATE = "evaluate"
POLL_S = 5
ENDS = [DagRunState.SUCCESS, DagRunState.FAILED]


class EvaluateCheckpointOperator(TriggerDagRunOperator):
    """Starts a run of ``evaluate`` under an id of its own, and waits for it in the triggerer.

    A run of that id that goes on is waited for, one that succeeded is left as it is, and one that
    failed is cleared, so that it generates only what it lacks. Where another task starts the same
    run in the same moment, that one waits for it and this one is skipped.

    Args:
        conf: parameters of the run.
        trigger_run_id: id of the run.
    """

    # The values come from people; none of them is a template.
    template_fields: Sequence[str] = ()

    def __init__(self, *, conf: dict[str, Any], trigger_run_id: str, **kwargs: Any) -> None:
        super().__init__(
            trigger_dag_id=EVALUATE,
            trigger_run_id=trigger_run_id,
            conf=conf,
            logical_date=None,
            wait_for_completion=True,
            deferrable=True,
            poke_interval=POLL_S,
            # Where another task starts the same run between our look and our start; it waits then.
            skip_when_already_exists=True,
            **kwargs,
        )

    def execute(self, context: "Context") -> None:
        """Find the run, or start it.

        Raises:
            AirflowFailException: the parameters cannot be used.
        """
        try:
            # As the form has it; `num_shards: auto` is for people.
            self.conf = parse_run_params(self.conf or {}).model_dump(mode="json")
        except UserError as error:
            raise AirflowFailException(f"{self.trigger_run_id}: {error}") from None
        run_id = str(self.trigger_run_id)
        # Airflow does so only where it starts the run, and every task is to lead to it.
        context["ti"].xcom_push("trigger_run_id", run_id)
        state = self._state(context["ti"], run_id)
        if state == "success":
            self.log.info("%s is there already", run_id)
            return
        if state is not None and state != "failed":
            self.log.info("%s goes on already", run_id)
            self.defer(
                trigger=DagStateTrigger(EVALUATE, ENDS, run_ids=[run_id], poll_interval=POLL_S),
                method_name="execute_complete",
            )
        self.reset_dag_run = state == "failed"
        super().execute(context)

    def execute_complete(self, context: "Context", event: tuple[str, dict[str, Any]]) -> None:
        """Fail where the run failed; another try of this task would not mend it.

        Raises:
            AirflowFailException: it did.
        """
        (run_id,) = event[1]["run_ids"]
        if event[1].get(run_id) != "success":
            raise AirflowFailException(
                f"The evaluation {run_id} failed; its own page says why. Clear this task to run it "
                "again: only what is missing is generated."
            )

    @staticmethod
    def _state(ti: Any, run_id: str) -> str | None:
        if not ti.get_dr_count(EVALUATE, run_ids=[run_id]):
            return None
        return DagRunState(ti.get_dagrun_state(EVALUATE, run_id)).value
