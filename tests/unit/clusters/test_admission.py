"""The door of a queue whose length the site limits."""

import pytest

from nightshard.clusters.admission import Admission
from nightshard.clusters.errors import SubmissionRejectedError
from nightshard.clusters.transport import CommandResult

pytestmark = pytest.mark.unit

FULL = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: policy\n"


class Site:
    """A Slurm with somebody else's run in the queue and a limit on jobs."""

    def __init__(self, lab, held: int, limit: int) -> None:
        self.held, self.limit = held, limit
        self.transport = lab.transport(self.answer)

    def answer(self, words: list[str], _: str | None) -> CommandResult:
        match words[0]:
            case "squeue" if any(word.startswith("--name") for word in words):
                return CommandResult("", "", 0)
            case "squeue":
                row = "9_{0}|9|{0}|9|PENDING|None||N/A|0:00|other\n"
                return CommandResult("".join(row.format(i) for i in range(self.held)), "", 0)
            case "sbatch" if self.held + 4 > self.limit:
                return CommandResult("", FULL, 1)
            case "sbatch":
                return CommandResult("100\n", "", 0)
            case _:
                return CommandResult("", "", 0)


@pytest.mark.parametrize("told", [10, None], ids=["in the profile", "by Slurm alone"])
async def test_an_array_waits_for_room_and_goes_when_there_is_some(lab, told: int | None) -> None:
    site = Site(lab, held=7, limit=10)
    door = Admission(lambda: site.transport, told, settle_s=0)

    assert await door.submit_now(lab.submission, "") is None
    assert site.transport.ran("sbatch") == (told is None)
    site.held = 6
    job = await door.submit_now(lab.submission, "")
    assert job is not None
    assert job.job_id == "100"
    assert await door.submit_now(lab.submission, "") == job


async def test_an_array_that_never_fits_is_refused_with_what_to_set(lab) -> None:
    site = Site(lab, held=0, limit=3)
    door = Admission(lambda: site.transport, settle_s=0)

    with pytest.raises(SubmissionRejectedError, match=r"array of 4 .* set slurm\.max_submitted"):
        await door.submit_now(lab.submission, "")
