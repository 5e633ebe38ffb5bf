"""One remote command brings everything, and half an answer is none."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.poll import (
    Accounts,
    Look,
    PollAnswer,
    element_of,
    parse_poll,
    poll_script,
    shard_files,
)
from nightshard.clusters.poll_program import FILE_KINDS, MAX_FILE_BYTES
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob

pytestmark = pytest.mark.unit

NONCE = "0123456789abcdef"


JOB = ArrayJob("56", None, "ns-run-1-a1", 1)


@pytest.fixture
def shards(tmp_path: Path) -> list[WatchedShard]:
    layout = RunLayout(PurePosixPath(tmp_path / "it's here"), "run-1")
    for folder in layout.folders(3):
        Path(folder).mkdir(parents=True)
    return [WatchedShard(layout, rank, 3, JOB, 10, "f") for rank in range(3)]


@dataclass
class Site:
    """A login node with programs that stand in for Slurm's."""

    bin: Path
    squeue: str = ":"
    sacct: str = ":"

    def ask(self, looks: dict[WatchedShard, Look] | list[WatchedShard], **options) -> PollAnswer:
        if isinstance(looks, list):
            looks = dict.fromkeys(looks, Look.PROGRESS)
        return parse_poll(self.run(poll_script(looks.items(), NONCE, **options)), NONCE)

    def run(self, script: str) -> str:
        for name in ("squeue", "sacct"):
            body = f'echo "$@" >>"{self.bin}/{name}.asked"\n{getattr(self, name)}'
            (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
            (self.bin / name).chmod(0o755)
        environ = {"PATH": f"{self.bin}:{os.defpath}"}
        done = subprocess.run(
            ["sh", "-s"], input=script, env=environ, capture_output=True, text=True, check=False
        )
        return done.stdout

    def asked(self, program: str) -> list[str]:
        log = self.bin / f"{program}.asked"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    programs = tmp_path / "bin"
    programs.mkdir()
    return Site(programs)


def row(rank: int, word: str, job: ArrayJob = JOB) -> str:
    fields = (f"{job.job_id}_{rank}", job.job_id, rank, 58, word, "None", "node2", "N/A", "1:02")
    return f"echo '{'|'.join(map(str, fields))}|{job.name}'"


def leave_everything(shard: WatchedShard) -> dict[str, str]:
    """Write each file that tells of a shard; return their texts."""
    texts = {}
    for kind, name in zip(FILE_KINDS, shard_files(shard), strict=True):
        texts[kind] = f'{{"{kind}": {shard.rank}}}'
        (Path(shard.layout.run) / name).write_text(texts[kind] + "\n")
    return texts


def test_a_running_shard_brings_its_progress_and_an_ended_one_everything(site, shards) -> None:
    left = {shard.rank: leave_everything(shard) for shard in shards}
    site.squeue = f"{row(0, 'PENDING')}; {row(1, 'RUNNING')}; {row(2, 'COMPLETED')}"

    answer = site.ask(shards)

    assert answer.complaints == {}
    assert answer.queue["", "56", 1].node == "node2"
    assert answer.accounts_state is Accounts.NOT_ASKED
    assert answer.files == {
        (JOB.name, 1): {"progress": left[1]["progress"]},
        (JOB.name, 2): left[2],
    }


def test_the_first_look_at_a_shard_brings_everything_that_is_there(site, shards) -> None:
    left = leave_everything(shards[0])
    site.squeue = row(0, "RUNNING")

    answer = site.ask({shards[0]: Look.FIRST})

    assert answer.files == {(JOB.name, 0): left}


def test_a_shard_whose_progress_is_not_due_brings_none_until_it_ends(site, shards) -> None:
    left = {shard.rank: leave_everything(shard) for shard in shards}
    site.squeue = f"{row(0, 'RUNNING')}; {row(1, 'FAILED')}"

    answer = site.ask(dict.fromkeys(shards[:2], Look.QUEUE))

    assert answer.files == {(JOB.name, 1): left[1]}


def test_a_state_that_slurm_invents_later_is_looked_at_closely(site, shards) -> None:
    left = leave_everything(shards[0])
    site.squeue = row(0, "NEW_STATE")

    assert site.ask(shards[:1]).files == {(JOB.name, 0): left}


def test_files_come_line_by_line_whatever_is_in_them(site, shards) -> None:
    texts = [f"@{NONCE} awk-status 1\n@other end\n=ns-run-1-a1\n==> x <==", '{\n "no": "end"}', ""]
    for shard, text in zip(shards, texts, strict=True):
        Path(shard.layout.progress(shard.rank)).write_text(text)

    answer = site.ask(shards)

    assert [answer.files.get((JOB.name, rank)) for rank in range(3)] == [
        {"progress": texts[0]},
        {"progress": texts[1]},
        None,
    ]


def test_of_a_file_that_has_run_wild_only_the_beginning_comes(site, shards) -> None:
    Path(shards[0].layout.progress(0)).write_text("x" * 10 * MAX_FILE_BYTES)
    Path(shards[1].layout.progress(1)).write_text("y\n" * MAX_FILE_BYTES)

    answer = site.ask(shards)

    sizes = [len(answer.files[JOB.name, rank]["progress"]) for rank in (0, 1)]
    assert all(0 < size <= MAX_FILE_BYTES + 2 for size in sizes)


def test_a_job_that_got_a_recycled_id_does_not_hide_what_ours_left(site, shards) -> None:
    left = leave_everything(shards[0])
    site.squeue = row(0, "RUNNING", ArrayJob("56", None, "somebody-else", 1))

    assert site.ask(shards[:1]).files == {(JOB.name, 0): left}


def test_the_elements_of_a_split_array_have_their_own_indices(site, tmp_path: Path) -> None:
    layout = RunLayout(PurePosixPath(tmp_path), "run-1")
    for folder in layout.folders(1200):
        Path(folder).mkdir(parents=True)
    job = ArrayJob("57", None, "ns-run-1-a1-r01000", 1, first_rank=1000)
    shard = WatchedShard(layout, 1003, 1200, job, 10, "f")
    left = leave_everything(shard)
    site.squeue = row(3, "COMPLETED", job)

    answer = site.ask([shard])

    assert answer.files == {(job.name, 1003): left}
    assert answer.files_of(shard) == left


def test_shards_that_share_a_job_end_with_it_and_have_their_own_files(site, tmp_path: Path) -> None:
    layout = RunLayout(PurePosixPath(tmp_path), "run-1")
    for folder in layout.folders(12):
        Path(folder).mkdir(parents=True)
    job = ArrayJob("57", None, "ns-run-1-a1-c1", 1, first_rank=4, per_job=3)
    shards = [WatchedShard(layout, rank, 12, job, 10, "f") for rank in range(4, 12)]
    left = {shard.rank: leave_everything(shard) for shard in shards}
    site.squeue = f"{row(0, 'COMPLETED', job)}; {row(1, 'RUNNING', job)}; {row(2, 'PENDING', job)}"

    answer = site.ask(shards)

    assert [answer.queue[element_of(shard)].word for shard in shards] == [
        *["COMPLETED"] * 3,
        *["RUNNING"] * 3,
        *["PENDING"] * 2,
    ]
    assert {rank: answer.files.get((job.name, rank), {}) for rank in left} == (
        {rank: left[rank] for rank in (4, 5, 6)}
        | {rank: {"progress": left[rank]["progress"]} for rank in (7, 8, 9)}
        | {10: {}, 11: {}}
    )


def test_where_shards_were_relieved_those_that_wait_bring_their_manifests(
    site, shards, tmp_path: Path
) -> None:
    left = {shard.rank: leave_everything(shard) for shard in shards}
    site.squeue = f"{row(0, 'PENDING')}; {row(1, 'RUNNING')}; {row(2, 'PENDING')}"
    (Path(shards[0].layout.run) / "relieved").touch()

    answer = site.ask(shards)

    assert answer.files == {
        (JOB.name, 0): {"manifest": left[0]["manifest"]},
        (JOB.name, 1): {"progress": left[1]["progress"]},
        (JOB.name, 2): {"manifest": left[2]["manifest"]},
    }


def test_a_queue_that_does_not_answer_says_nothing_of_jobs(site, shards) -> None:
    left = {shard.rank: leave_everything(shard) for shard in shards}
    site.squeue = f"{row(1, 'RUNNING')}; echo 'Unable to contact slurm controller' >&2; exit 1"
    site.sacct = "echo '56_2|57|TIMEOUT|0:0|node1|60|Unknown|ns-run-1-a1'"

    answer = site.ask({shards[0]: Look.PROGRESS, shards[1]: Look.QUEUE, shards[2]: Look.MISSING})

    assert "Unable to contact slurm controller" in answer.complaints[""]
    assert answer.queue == {}
    assert answer.accounts_state is Accounts.ANSWERED
    assert answer.files == {(JOB.name, 2): left[2]}


def test_a_silent_queue_alone_is_no_reason_to_ask_for_accounts(site, shards) -> None:
    site.squeue = "exit 1"

    answer = site.ask(shards)

    assert answer.complaints == {"": "squeue ended with status 1"}
    assert site.asked("sacct") == []


@pytest.mark.parametrize(
    ("sacct", "state"),
    [
        ("echo '56_0|57|TIMEOUT|0:0|node1|60|Unknown|ns-run-1-a1'", Accounts.ANSWERED),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", Accounts.DISABLED),
        ("echo 'sacct: error: Connection refused' >&2; exit 1", Accounts.DOWN),
        ("exit 124", Accounts.DOWN),
    ],
)
def test_what_became_of_the_accounts_is_known(site, shards, sacct: str, state: Accounts) -> None:
    site.sacct = sacct

    answer = site.ask(shards)

    assert answer.accounts_state is state
    assert (("", "56", 0) in answer.accounts) == (state is Accounts.ANSWERED)


def test_accounts_are_asked_only_of_the_arrays_that_the_queue_has_forgotten(
    site, shards, tmp_path: Path
) -> None:
    other = ArrayJob("99", None, "ns-run-2-a1", 1)
    known = WatchedShard(RunLayout(PurePosixPath(tmp_path), "run-2"), 0, 1, other, 1, "f")
    site.squeue = f"{row(0, 'RUNNING')}; {row(0, 'RUNNING', other)}"

    site.ask([known])
    assert site.asked("sacct") == []

    site.ask([*shards, known])
    assert [line.split("--jobs=")[1] for line in site.asked("sacct")] == ["56"]

    site.ask([*shards, known], accounts=False)
    assert len(site.asked("sacct")) == 1


def test_clusters_of_a_federation_are_told_apart(site, tmp_path: Path) -> None:
    """Two controllers count their jobs for themselves, so that both have a job 56."""
    shards = []
    for cluster in ("east", "west"):
        layout = RunLayout(PurePosixPath(tmp_path), f"run-{cluster}")
        Path(layout.shard(0)).mkdir(parents=True)
        Path(layout.progress(0)).write_text(cluster)
        job = ArrayJob("56", cluster, f"ns-{cluster}-a1", 1)
        shards.append(WatchedShard(layout, 0, 1, job, 1, "f"))
    rows = [row(0, "RUNNING", shard.job) for shard in shards]
    site.squeue = f"case $* in *east*) {rows[0]};; *) echo down >&2; exit 1;; esac"

    answer = site.ask(shards)

    assert list(answer.queue) == [("east", "56", 0)]
    assert answer.complaints == {"west": "down"}
    assert answer.files == {("ns-east-a1", 0): {"progress": "east"}}


def test_a_run_folder_that_is_gone_has_no_files(site, tmp_path: Path) -> None:
    layout = RunLayout(PurePosixPath(tmp_path / "gone"), "run-1")
    site.squeue = row(0, "COMPLETED")

    answer = site.ask([WatchedShard(layout, 0, 1, JOB, 1, "f")])

    assert answer.files == {}
    assert answer.queue


def test_a_login_node_without_awk_has_not_answered(site, shards) -> None:
    script = poll_script([(shard, Look.FIRST) for shard in shards], NONCE)

    with pytest.raises(TransportError, match="awk ended with status 127"):
        parse_poll(site.run(f"PATH={site.bin}\n{script}"), NONCE)


def test_the_question_about_thousands_of_shards_is_short() -> None:
    layout = RunLayout(PurePosixPath("/w"), "run-1")
    shards = [WatchedShard(layout, rank, 6400, JOB, 1, "f") for rank in range(6400)]

    few, many = (
        poll_script([(shard, Look.PROGRESS) for shard in some], NONCE)
        for some in (shards[:2], shards)
    )

    assert len(many) < len(few) + 100


COMPLETE = f"""
@{NONCE} squeue east
56_0|56|0|57|RUNNING|None|node1|N/A|0:03|ns-run-1-a1

@{NONCE} squeue-status 0

@{NONCE} files
=ns-run-1-a1
0 1:{{"done": 1}}

@{NONCE} awk-status 0

@{NONCE} end
"""


@given(st.integers(0, len(COMPLETE) - 1))
def test_an_answer_that_is_cut_anywhere_is_refused(length: int) -> None:
    assert parse_poll(COMPLETE, NONCE).queue
    with pytest.raises(TransportError, match="cut off"):
        parse_poll(COMPLETE[:length], NONCE)


def test_the_answer_to_another_question_is_refused() -> None:
    with pytest.raises(TransportError):
        parse_poll(COMPLETE, "another")
