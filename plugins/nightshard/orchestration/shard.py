"""One mapped sensor a shard: deferred for as long as its array element lives."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from nightshard.orchestration.links import SHARD_LINKS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from nightshard.clusters.following import ShardFollower

SHARD_LABEL = "shard {{ task.shard['number'] }} of {{ task.shard['count'] }}"
"""Name of a mapped shard in the grid; pass it as ``map_index_template`` to ``partial``."""


class ShardSensor(BaseSensorOperator):
    """Waits until one shard is done: its job has ended and its answers are whole.

    The wait happens in the triggerer, where all shards of a cluster share one connection and one
    query an interval; a shard that ends well never takes a worker's slot again.

    Args:
        shard: what ``submit_shards`` returned for this shard, see
            :func:`nightshard.orchestration.steps.moving.submit`.

    Raises:
        AirflowFailException: the shard is lost; the message has the cause and the last lines of
            the shard's own log.
    """

    operator_extra_links = SHARD_LINKS

    def __init__(self, *, shard: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard

    def execute(self, context: "Context") -> None:
        """Hand the shard over to the triggerer.

        A later try, after a clear in the UI, finds the shard's job again. Where that has failed, it
        gives the shard another attempt, which generates only what is missing.
        """
        shard, try_number = self.shard, context["ti"].try_number
        if try_number > 1:
            self._own(try_number)
        where = f"Slurm job {shard['job_id']}" if shard["job_id"] else "not yet in the queue"
        self.log.info(
            "Shard %d of %d: %d requests, %s on cluster %s",
            shard["number"],
            shard["count"],
            shard["rows"],
            where,
            shard["cluster"],
        )
        self.defer(
            trigger=ShardTrigger(shard=shard, try_number=try_number),
            method_name=self.resume.__name__,
        )

    def resume(self, context: "Context", event: dict[str, str]) -> None:
        """Fail with what the trigger found out; only a lost shard comes back here."""
        from nightshard.orchestration.notifying import notify_of_shard

        notify_of_shard(context, event["message"])
        raise AirflowFailException(event["message"]) from None

    def _own(self, try_number: int) -> None:
        """Keep the earlier try from cancelling the job, which Airflow asks of it soon after."""
        from nightshard.core.errors import NightshardError
        from nightshard.orchestration.following import shard_follower

        async def own() -> None:
            await (await shard_follower(self.shard, try_number, self.log.info)).own()

        try:
            asyncio.run(own())
        except NightshardError as error:
            # Then the earlier try cannot reach the cluster either. The trigger asks again.
            self.log.warning("%s", error)


class ShardTrigger(BaseTrigger):
    """Follows one shard through its cluster's shared poller and tells its story.

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
        """Cancel this shard's own job when a person ends the task; siblings go on.

        Airflow calls this after a clear as well, when the next try has taken the shard over; that
        try's job is left alone. A restart of the triggerer does not come here.
        """
        self.log.info("%s", await (await self._follower()).cancel())

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the shard; end the task on success, wake it when the shard is lost."""
        from nightshard.clusters.patience import patiently
        from nightshard.core.errors import UserError
        from nightshard.orchestration.following import failure, success

        try:
            follower = await self._follower()
            if self.try_number > 1:
                await patiently(follower.own, self.log.info)
            outcome = await follower.run()
        except UserError as error:
            yield _wake(str(error))
            return
        if outcome.done:
            self.log.info(outcome.message)
            yield TaskSuccessEvent(xcoms={"return_value": success(outcome)})
        else:
            yield _wake(failure(outcome))

    async def _follower(self) -> "ShardFollower":
        from nightshard.orchestration.following import shard_follower

        return await shard_follower(self.shard, self.try_number, self.log.info)


def _wake(message: str) -> TriggerEvent:
    return TriggerEvent({"message": message})  # type: ignore[no-untyped-call]
