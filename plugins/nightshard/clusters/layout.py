"""Where everything lies on a cluster's shared file system (the contract of files, version 1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from nightshard.core.errors import UserError

RUN_KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")
RANK_DIGITS = 5


def shard_name(rank: int, world_size: int) -> str:
    """Name a shard's files: ``shard-00003-of-00008``."""
    return f"shard-{rank:0{RANK_DIGITS}d}-of-{world_size:0{RANK_DIGITS}d}"


@dataclass(frozen=True, slots=True)
class RunLayout:
    """All remote paths of one run.

    Args:
        workdir: the profile's folder on the shared file system, absolute.
        run_key: the run's key; it becomes a folder, a job name and part of shell words.

    Raises:
        UserError: the key has another form than ``[a-z0-9][a-z0-9-]{0,80}``.
    """

    workdir: PurePosixPath
    run_key: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "workdir", PurePosixPath(self.workdir))
        if not RUN_KEY.fullmatch(self.run_key):
            raise UserError(
                f"The run key {self.run_key!r} cannot name a folder; use at most 81 lower-case "
                "letters, digits and dashes, not beginning with a dash."
            )

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"workdir": str(self.workdir), "run_key": self.run_key}

    @classmethod
    def from_dict(cls, value: Mapping[str, str]) -> "RunLayout":
        """Build from :meth:`to_dict`'s form."""
        return cls(PurePosixPath(value["workdir"]), value["run_key"])

    @property
    def run(self) -> PurePosixPath:
        """The run's folder."""
        return self.workdir / "runs" / self.run_key

    @property
    def spec(self) -> PurePosixPath:
        """The worker's orders."""
        return self.run / "spec.json"

    @property
    def identity(self) -> PurePosixPath:
        """Whose run this is, see :class:`~nightshard.clusters.documents.RunIdentity`."""
        return self.run / "run.json"

    @property
    def inputs(self) -> PurePosixPath:
        """Folder of the shards' questions."""
        return self.run / "inputs"

    @property
    def outputs(self) -> PurePosixPath:
        """Folder of the shards' answers."""
        return self.run / "outputs"

    @property
    def shards(self) -> PurePosixPath:
        """Folder of the shards' working folders."""
        return self.run / "shards"

    def input_file(self, rank: int, world_size: int) -> PurePosixPath:
        """Questions of one shard."""
        return self.inputs / f"{shard_name(rank, world_size)}.parquet"

    def output_file(self, rank: int, world_size: int) -> PurePosixPath:
        """Answers of one shard."""
        return self.outputs / f"{shard_name(rank, world_size)}.parquet"

    def manifest(self, rank: int, world_size: int) -> PurePosixPath:
        """What says that one shard's answers are complete."""
        return self.outputs / f"{shard_name(rank, world_size)}.manifest.json"

    def shard(self, rank: int) -> PurePosixPath:
        """Working folder of one shard."""
        return self.shards / f"{rank:0{RANK_DIGITS}d}"

    def progress(self, rank: int) -> PurePosixPath:
        """How far one shard is."""
        return self.shard(rank) / "progress.json"

    def attempt_log(self, rank: int, attempt: int) -> PurePosixPath:
        """Standard output and error of one array element."""
        return self.shard(rank) / f"attempt-{attempt}.log"

    def log_pattern(self, attempt: int, first_rank: int = 0, per_job: int = 1) -> str:
        """:meth:`attempt_log` as Slurm's file name pattern: ``%5a`` is the zero-padded index.

        Where an index is not the rank the path leads through :meth:`links`; of the shards of a
        job it is that of the first.
        """
        folder = self.links(first_rank) if first_rank or per_job > 1 else self.shards
        return f"{folder}/%{RANK_DIGITS}a/attempt-{attempt}.log"

    def links(self, first_rank: int) -> PurePosixPath:
        """Folder of links, named by array index, to the first shard of each of an array's jobs."""
        return self.run / "links" / f"{first_rank:0{RANK_DIGITS}d}"

    def exit_record(self, rank: int, attempt: int) -> PurePosixPath:
        """The element's exit code, written by the batch script as its last act."""
        return self.shard(rank) / f"exit-a{attempt}"

    def owner(self, rank: int) -> PurePosixPath:
        """The try of the Airflow task that a shard belongs to; absent while it is the first."""
        return self.shard(rank) / "owner"

    def attempt_record(self, rank: int, attempt: int) -> PurePosixPath:
        """How an attempt ended and what was decided then; written by the control plane."""
        return self.shard(rank) / f"attempt-{attempt}.json"

    def script(self, label: str) -> PurePosixPath:
        """The batch script of one submission, see :class:`nightshard.clusters.submission`."""
        return self.run / f"job-{label}.sbatch"

    def submission(self, label: str) -> PurePosixPath:
        """The intent to submit, written before ``sbatch`` runs."""
        return self.run / f"submission-{label}.json"

    def job_name(self, label: str) -> str:
        """The key by which Slurm knows one submission."""
        return f"ns-{self.run_key}-{label}"

    def folders(self, world_size: int) -> list[PurePosixPath]:
        """All folders that must exist before the array starts.

        Slurm opens ``--output`` before the script runs, so each shard's folder is among them.
        """
        return [self.inputs, self.outputs, *(self.shard(rank) for rank in range(world_size))]
