"""Whatever reply of sbatch gets lost, an array is submitted once in effect."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightshard.clusters.errors import QueueFullError, SubmissionRejectedError, TransportError
from nightshard.clusters.submit import ArrayJob, cancel, submit_array
from nightshard.clusters.transport import CommandResult

pytestmark = pytest.mark.unit

LOST = TransportError("The connection closed before the remote command reported its end.")
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
REFUSED = "sbatch: error: Batch job submission failed: Invalid account\n"
FULL = (
    "sbatch: error: AssocMaxSubmitJobLimit\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy\n"
)

KINDS = ("ok", "lost after", "lost before", "timed out after", "timed out before", "ok but rc 1")


class Slurm:
    """A controller whose replies to sbatch go as a test says; then all goes well."""

    def __init__(self, lab, replies: list[str]) -> None:
        self.lab = lab
        self.replies = list(replies)
        self.jobs: list[str] = []
        self.rejected: list[str] = []
        self.transport = lab.transport(self.answer)

    def answer(self, words: list[str], _: str | None) -> CommandResult | Exception:
        match words[0]:
            case "squeue":
                listed = [(job, "PENDING", "None") for job in self.jobs]
                listed += [(job, "FAILED", "BadConstraints") for job in self.rejected]
                lines = (
                    f"{job}_0|{job}|0|{job}|{word}|{reason}||N/A|0:00|ns-run-1-a1\n"
                    for job, word, reason in listed
                )
                return CommandResult("".join(lines), "", 0)
            case "sacct":
                return CommandResult("", "Slurm accounting storage is disabled\n", 1)
            case "sbatch":
                return self._submit(self.replies.pop(0) if self.replies else "ok")
            case _:
                return CommandResult("", "", 0)

    def _submit(self, kind: str) -> CommandResult | Exception:
        number = str(100 + len(self.jobs) + len(self.rejected))
        if kind == "refused":
            self.rejected.append(number)
            return CommandResult("", REFUSED, 1)
        if kind == "full":
            return CommandResult("", FULL, 1)
        if not kind.endswith("before"):
            self.jobs.append(number)
        if kind.startswith("lost"):
            return LOST
        if kind.startswith("timed out"):
            return CommandResult("", TIMED_OUT, 1)
        return CommandResult(f"Welcome\n{number}\n", "", int(kind == "ok but rc 1"))

    async def submit(self) -> ArrayJob:
        return await submit_array(self.transport, self.lab.submission, "#!/bin/sh\n", settle_s=0)


@pytest.mark.parametrize("first", KINDS)
async def test_each_kind_of_reply_leads_to_one_job(lab, first: str) -> None:
    slurm = Slurm(lab, [first])

    job = await slurm.submit()

    assert slurm.jobs == [job.job_id]
    assert job.adopted == (first in {"lost after", "timed out after"})


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from([*KINDS, "refused", "full"]), max_size=8), st.integers(1, 4))
async def test_no_order_of_mishaps_gives_two_jobs(lab, replies: list[str], calls: int) -> None:
    slurm = Slurm(lab, replies)
    for _ in range(calls):
        try:
            job = await slurm.submit()
        except (TransportError, SubmissionRejectedError):
            continue
        assert job.job_id == slurm.jobs[0]

    assert len(slurm.jobs) <= 1


async def test_the_intent_is_on_disk_before_sbatch_runs(lab) -> None:
    seen = []
    slurm = Slurm(lab, [])

    def answer(words: list[str], stdin: str | None):
        if words[0] == "sbatch":
            seen.append(slurm.transport.files.get(lab.submission.intent))
        return slurm.answer(words, stdin)

    slurm.transport.answer = answer
    job = await slurm.submit()

    assert json.loads(seen[0])["name"] == "ns-run-1-a1"
    assert json.loads(seen[0])["job_id"] is None
    note = json.loads(slurm.transport.files[lab.submission.intent])
    assert note["job_id"] == job.job_id


async def test_a_refusal_has_slurms_words_and_leaves_the_way_open(lab) -> None:
    slurm = Slurm(lab, ["refused"])

    with pytest.raises(SubmissionRejectedError, match=r"Slurm refused the job: .*Invalid account"):
        await slurm.submit()
    job = await slurm.submit()

    assert slurm.jobs == [job.job_id]
    assert not job.adopted


async def test_a_full_queue_is_told_from_a_refusal_for_good(lab) -> None:
    slurm = Slurm(lab, ["full"])

    with pytest.raises(QueueFullError, match="AssocMaxSubmitJobLimit"):
        await slurm.submit()
    job = await slurm.submit()

    assert slurm.jobs == [job.job_id]


async def test_of_two_arrays_with_one_name_the_newer_is_cancelled(lab) -> None:
    slurm = Slurm(lab, [])
    slurm.jobs = ["100", "101"]

    job = await slurm.submit()

    assert (job.job_id, job.adopted) == ("100", True)
    cancels = [words for words in slurm.transport.commands if words[0] == "scancel"]
    assert cancels == [["scancel", "--name=ns-run-1-a1", "101"]]


async def test_an_outcome_that_stays_unknown_is_no_users_mistake(lab) -> None:
    slurm = Slurm(lab, ["timed out before"] * 3)

    with pytest.raises(TransportError, match=r"no clear answer 3 times .* Socket timed out"):
        await slurm.submit()

    assert slurm.jobs == []


async def test_a_queue_that_does_not_answer_submits_nothing(lab) -> None:
    transport = lab.transport(lambda *_: CommandResult("", "slurm_load_jobs error", 1))

    with pytest.raises(TransportError, match="squeue did not answer"):
        await submit_array(transport, lab.submission, "", settle_s=0)

    assert transport.ran("sbatch") == 0


async def test_a_login_node_without_sbatch_is_named(lab) -> None:
    def answer(words: list[str], _: str | None) -> CommandResult:
        missing = words[0] == "sbatch"
        return CommandResult("", "sh: sbatch: not found" if missing else "", 127 * missing)

    with pytest.raises(SubmissionRejectedError, match="sbatch is not on the PATH"):
        await submit_array(lab.transport(answer), lab.submission, "", settle_s=0)


async def test_a_cancel_names_the_elements_without_a_filter_and_in_batches(lab) -> None:
    def answer(words: list[str], _: str | None) -> CommandResult:
        rows = (f"56_{i}|56|{i}|56|PENDING|None||N/A|0:00|ns-run-1-a1\n" for i in range(1200))
        return CommandResult("".join(rows) if words[0] == "squeue" else "", "", 0)

    transport = lab.transport(answer)
    await cancel(transport, lab.job, range(1100))

    cancels = [words for words in transport.commands if words[0] == "scancel"]
    # With any filter scancel(1) takes every waiting element of the array along.
    assert not any(word.startswith("-") for words in cancels for word in words)
    assert [word for words in cancels for word in words[1:]] == [f"56_{i}" for i in range(1100)]
    assert max(map(len, cancels)) == 501
