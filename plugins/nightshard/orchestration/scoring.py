"""The task ``score``: done here, or by a job on the cluster for which it waits deferred."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from nightshard.orchestration.tasks import one_sentence

if TYPE_CHECKING:
    from airflow.sdk import Context

    from nightshard.clusters.profile import ClusterProfile
    from nightshard.clusters.scoring import ScoreJob


class ScoreOperator(BaseOperator):
    """Judges every answer of a run, where the cluster's profile says.

    Args:
        prepared: what ``prepare_dataset`` returned.

    Raises:
        AirflowFailException: no benchmark could be scored, or the job failed; the message has the
            last lines of its log.
    """

    template_fields: Sequence[str] = ("prepared",)

    def __init__(self, *, prepared: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prepared = prepared

    def execute(self, context: "Context") -> dict[str, Any]:
        """Judge here, or submit the job and hand it over to the triggerer."""
        from nightshard.orchestration.steps import scoring, scoring_there

        try_number = context["ti"].try_number
        job = one_sentence(scoring_there.submit)(self.prepared, try_number)
        if job is not None:
            cluster = self.prepared["plan"]["params"]["cluster"]
            self.log.info("Slurm job %s of cluster %s judges the answers", job["id"], cluster)
            self.defer(
                trigger=ScoreTrigger(job=job["job"], cluster=cluster, try_number=try_number),
                method_name=self.resume.__name__,
            )
        one_sentence(scoring.score)(self.prepared)
        return dict(self.prepared)

    def resume(self, context: "Context", event: dict[str, str | None]) -> dict[str, Any]:
        """Fetch the scores, or fail with what the job said."""
        from nightshard.orchestration.steps import scoring_there

        if event["problem"] is not None:
            raise AirflowFailException(event["problem"]) from None
        one_sentence(scoring_there.fetch)(self.prepared)
        return dict(self.prepared)


class ScoreTrigger(BaseTrigger):
    """Follows a judging job.

    Args:
        job: a :class:`~nightshard.clusters.scoring.ScoreJob` as JSON.
        cluster: name of the profile.
        try_number: try of the Airflow task that deferred this trigger.
    """

    def __init__(self, job: dict[str, Any], cluster: str, try_number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job = job
        self.cluster = cluster
        self.try_number = try_number

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what a triggerer needs to start over."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        values = {"job": self.job, "cluster": self.cluster, "try_number": self.try_number}
        return name, values

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wake the task when the job has ended."""
        from nightshard.clusters.scoring import follow
        from nightshard.core.errors import UserError
        from nightshard.orchestration.following import cluster_of

        try:
            profile, job = await self._parts()
            problem = await follow(cluster_of(profile).connect, profile, job, self.log.info)
        except UserError as error:
            problem = str(error)
        yield TriggerEvent({"problem": problem})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the job when a person ends the task, unless a later try has taken it over."""
        from nightshard.clusters.scoring import give_up
        from nightshard.orchestration.following import cluster_of

        profile, job = await self._parts()
        async with cluster_of(profile).connect() as transport:
            if await give_up(transport, job, self.try_number):
                self.log.info("Cancelled Slurm job %s", job.job.element(0))

    async def _parts(self) -> "tuple[ClusterProfile, ScoreJob]":
        from nightshard.clusters.scoring import ScoreJob
        from nightshard.orchestration.steps import profile_named

        # Reading a small YAML file still blocks the triggerer's loop.
        return await asyncio.to_thread(profile_named, self.cluster), ScoreJob.from_dict(self.job)
