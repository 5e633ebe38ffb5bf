"""What Slurm tells a job in its environment."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

CLOCK_TOLERANCE_S = 60.0
"""By how much the clocks of a node and of Slurm's controller may disagree unnoticed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs.

    Attributes:
        node: Slurm's node name, or the host's name outside Slurm.
        job_id: the array element's own job id, None outside Slurm.
        array_job_id: id of the whole array.
        array_task_id: index of the element.
        cluster: ClusterName of slurm.conf.
        restarts: how often Slurm has requeued this job.
        start: when the job began, in seconds since 1970 by Slurm's controller.
        end: when its time limit is reached, likewise.
    """

    node: str
    job_id: str | None
    array_job_id: str | None
    array_task_id: str | None
    cluster: str | None
    restarts: int
    start: float | None = None
    end: float | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Place":
        """Read the output environment variables that sbatch(1) documents."""
        return cls(
            # Several slurmds may share a host, so Slurm's own name comes first.
            node=environ.get("SLURMD_NODENAME") or socket.gethostname(),
            job_id=environ.get("SLURM_JOB_ID"),
            array_job_id=environ.get("SLURM_ARRAY_JOB_ID"),
            array_task_id=environ.get("SLURM_ARRAY_TASK_ID"),
            cluster=environ.get("SLURM_CLUSTER_NAME"),
            restarts=int(environ.get("SLURM_RESTART_COUNT") or 0),
            start=_seconds(environ.get("SLURM_JOB_START_TIME")),
            end=_seconds(environ.get("SLURM_JOB_END_TIME")),
        )

    def to_manifest(self) -> dict[str, str | None]:
        """Return the manifest's ``slurm`` object."""
        return {
            "job_id": self.job_id,
            "array_job_id": self.array_job_id,
            "array_task_id": self.array_task_id,
            "cluster": self.cluster,
        }

    def seconds_left(self, now: float, stop_before_s: float) -> float | None:
        """Return after how many seconds a process must stop to be done before the time limit.

        Args:
            now: seconds since 1970 by this node's clock.
            stop_before_s: how long before the limit; at most a tenth of the job's time.

        Returns:
            None without a limit.
        """
        if self.end is None:
            return None
        left = self.end - now
        if self.start is not None:
            span = self.end - self.start
            stop_before_s = min(stop_before_s, span / 10)
            if not 0 < left <= span + CLOCK_TOLERANCE_S:
                left = span  # the clocks disagree, and this process begins about when its job does
        return max(0.0, left - stop_before_s)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None
