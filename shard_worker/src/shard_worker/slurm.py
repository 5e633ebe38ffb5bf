"""What Slurm tells a job in its environment."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass


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
    """

    node: str
    job_id: str | None
    array_job_id: str | None
    array_task_id: str | None
    cluster: str | None
    restarts: int

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
        )

    def to_manifest(self) -> dict[str, str | None]:
        """Return the manifest's ``slurm`` object."""
        return {
            "job_id": self.job_id,
            "array_job_id": self.array_job_id,
            "array_task_id": self.array_task_id,
            "cluster": self.cluster,
        }
