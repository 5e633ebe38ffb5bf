"""One mapped sensor a shard: deferred for as long as its array element lives."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

if TYPE_CHECKING:
    from airflow.sdk import Context

SHARD_LABEL = "shard {{ task.shard['number'] }} of {{ task.shard['count'] }}"
"""Name of a mapped shard in the grid; pass it as ``map_index_template`` to ``partial``."""


class ShardSensor(BaseSensorOperator):
    """Waits until one shard's array element has ended and its manifest is valid.

    The wait happens in the triggerer, where all shards of a cluster share one connection and one
    query an interval; a shard that ends well never takes a worker's slot again.

    Args:
        shard: what ``submit_shards`` returned for this shard, see
            :func:`nightshard.orchestration.steps.moving.submit`.

    Raises:
        AirflowFailException: the element failed; the message has its cause and the last lines of
            the shard's own log.
    """

    def __init__(self, *, shard: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard

    def execute(self, context: "Context") -> None:
        """Hand the shard over to the triggerer.

        A later try, after a clear in the UI, finds the shard's job again. Where that has failed, it
        submits another attempt of this shard alone, which generates only what is missing.
        """
        shard, try_number = self.shard, context["ti"].try_number
        if try_number > 1:
            from nightshard.orchestration.steps.reattaching import take_over

            shard = take_over(shard, try_number)
        self.log.info(
            "Shard %(number)d of %(count)d: %(rows)d requests, Slurm job %(job_id)s_%(rank)d on "
            "cluster %(cluster)s",
            shard,
        )
        self.defer(
            trigger=ShardTrigger(shard=shard, try_number=try_number),
            method_name=self.resume.__name__,
        )

    def resume(self, context: "Context", event: dict[str, str]) -> None:
        """Fail with what the trigger found out; only a failed shard comes back here."""
        raise AirflowFailException(event["message"]) from None


class ShardTrigger(BaseTrigger):
    """Follows one array element through its cluster's shared poller and tells its story.

    Args:
        shard: as for :class:`ShardSensor`.
        try_number: try of the Airflow task that deferred this trigger.
    """

    def __init__(self, shard: dict[str, Any], try_number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shard = shard
        self.try_number = try_number

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what a triggerer needs to start over."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return name, {"shard": self.shard, "try_number": self.try_number}

    async def on_kill(self) -> None:
        """Cancel this shard's own array element when a person ends the task; siblings go on.

        Airflow calls this after a clear as well, when the next try has taken the shard over; that
        try's job is left alone. A restart of the triggerer does not come here.
        """
        from nightshard.orchestration.following import cancel_shard

        self.log.info("%s", await cancel_shard(self.shard, self.try_number))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Log each change; end the task on success, wake it on failure."""
        from nightshard.core.errors import UserError
        from nightshard.orchestration.following import follow_shard

        try:
            async for step in follow_shard(self.shard):
                self.log.info(step.sentence)
                if step.failed:
                    yield _wake(step.sentence)
                elif step.result is not None:
                    yield TaskSuccessEvent(xcoms={"return_value": step.result})
        except UserError as error:
            yield _wake(str(error))


def _wake(message: str) -> TriggerEvent:
    return TriggerEvent({"message": message})  # type: ignore[no-untyped-call]
