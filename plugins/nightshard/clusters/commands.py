"""How Slurm is asked, and what it answers to a submission: argument lists and replies. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nightshard.clusters.slurm import SACCT_FORMAT, SQUEUE_FORMAT

SACCT_WINDOW = "now-7days"


@dataclass(frozen=True, slots=True)
class SubmittedId:
    """What ``sbatch --parsable`` printed: a job id and, on federated sites, a cluster."""

    job_id: str
    cluster: str | None = None


def parse_parsable(stdout: str) -> SubmittedId | None:
    """Find the id in the output of ``sbatch --parsable``; None where there is none.

    A site's own lines around it are passed over, and the exit code does not matter: sbatch can
    fail after the controller has accepted the job.
    """
    for line in reversed(stdout.splitlines()):
        match = re.fullmatch(r"(\d+)(?:;([A-Za-z0-9._-]+))?", line.strip())
        if match is not None:
            return SubmittedId(match[1], match[2])
    return None


_AMBIGUOUS = re.compile(
    r"timed out|timeout|unable to contact|connection refused|connection reset|"
    r"unexpected message|zero bytes|transport endpoint|message receive failure|"
    r"communication|standby|temporarily|try again|slurm_load|protocol authentication",
    re.IGNORECASE,
)


def rejection(stderr: str) -> str | None:
    """Return Slurm's sentence where it clearly refused a job.

    None where the words leave open whether it was accepted: "Socket timed out on send/recv" often
    means that it was.
    """
    complaints = re.findall(r"^sbatch: (?:error|fatal): (.+)$", stderr, re.MULTILINE)
    if not complaints or any(_AMBIGUOUS.search(line) for line in complaints):
        return None
    return "; ".join(line.strip().rstrip(".") for line in complaints)


def sbatch_command(script: PurePosixPath) -> list[str]:
    """Return the arguments that submit a script; all options stand in the script itself."""
    return ["sbatch", "--parsable", str(script)]


def squeue_command(
    *, name: str | None = None, cluster: str | None = None, columns: str = SQUEUE_FORMAT
) -> list[str]:
    """Return the arguments that list my array elements, ended ones too while Slurm keeps them."""
    return [
        "squeue",
        "--me",
        "--array",
        "--noheader",
        "--states=all",
        f"--format={columns}",
        *([f"--name={name}"] if name else []),
        *([f"--clusters={cluster}"] if cluster else []),
    ]


def sacct_command(
    *, name: str | None = None, job_ids: Sequence[str] = (), cluster: str | None = None
) -> list[str]:
    """Return the arguments that list my array elements from the accounting database."""
    return [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        f"--format={SACCT_FORMAT}",
        f"--starttime={SACCT_WINDOW}",
        *([f"--name={name}"] if name else []),
        *([f"--jobs={','.join(job_ids)}"] if job_ids else []),
        *([f"--clusters={cluster}"] if cluster else []),
    ]


def scancel_command(name: str, job_id: str | None = None, cluster: str | None = None) -> list[str]:
    """Return the arguments that cancel a whole array; by its name alone where no id is known.

    With the name Slurm leaves a job alone that got a recycled id. Elements are cancelled by
    :func:`nightshard.clusters.cancelling.cancel_elements`, which says why not so.
    """
    return [
        "scancel",
        f"--name={name}",
        *([f"--clusters={cluster}"] if cluster else []),
        *([job_id] if job_id else []),
    ]


_QUEUE_FULL = re.compile(r"MaxSubmit|MaxJobCount", re.IGNORECASE)


def queue_is_full(refusal: str) -> bool:
    """Whether Slurm refuses for the number of jobs in the queue only, so that waiting helps.

    The words are those of the limits MaxSubmitJobs of an association or a QOS
    (``AssocMaxSubmitJobLimit``, ``QOSMaxSubmitJobPerUserLimit``; resource_limits in Slurm's docs).
    """
    return _QUEUE_FULL.search(refusal) is not None


def accounting_disabled(stderr: str) -> bool:
    """Whether ``sacct`` says that this cluster keeps no accounts."""
    return "accounting storage is disabled" in stderr
