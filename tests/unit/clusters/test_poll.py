"""One remote command brings everything, and half an answer is none."""

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.poll import Accounts, parse_poll, poll_script
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob

pytestmark = pytest.mark.unit

NONCE = "0123456789abcdef"


@pytest.fixture
def shards(tmp_path: Path) -> list[WatchedShard]:
    layout = RunLayout(PurePosixPath(tmp_path / "it's here"), "run-1")
    job = ArrayJob("56", None, "ns-run-1-a1", 1)
    for folder in layout.folders(3):
        Path(folder).mkdir(parents=True)
    return [WatchedShard(layout, rank, 3, job, 10, "f") for rank in range(3)]


def ask(tmp_path: Path, script: str, squeue: str = ":", sacct: str = ":") -> str:
    """Run a poll's script with programs that stand in for Slurm's."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name, body in {"squeue": squeue, "sacct": sacct}.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    environ = {"PATH": f"{programs}:{os.defpath}"}
    done = subprocess.run(
        ["sh", "-s"], input=script, env=environ, capture_output=True, text=True, check=False
    )
    return done.stdout


ROW = "echo '56_1|56|1|58|RUNNING|None|node2|2026-11-24T22:59:07|ns-run-1-a1'"


def test_an_answer_has_the_queue_and_the_files(tmp_path: Path, shards) -> None:
    layout = shards[0].layout
    Path(layout.progress(1)).write_text('{"done": 3}\n')
    Path(layout.manifest(2, 3)).write_text('{\n "no newline": "at the end"}')

    answer = parse_poll(ask(tmp_path, poll_script(shards, NONCE), squeue=ROW), NONCE)

    assert answer.queue_ok
    assert answer.queue["56", 1].node == "node2"
    assert answer.accounts_state is Accounts.NOT_ASKED
    assert answer.files == {
        layout.progress(1): '{"done": 3}',
        layout.manifest(2, 3): '{\n "no newline": "at the end"}',
    }


def test_a_file_cannot_pass_for_a_section(tmp_path: Path, shards) -> None:
    text = f"@{NONCE} squeue-status 1\n@other end\n==> x <==\n"
    path = shards[0].layout.progress(0)
    Path(path).write_text(text)

    answer = parse_poll(ask(tmp_path, poll_script(shards, NONCE)), NONCE)

    assert answer.queue_ok
    assert answer.files[path] == text.rstrip("\n")


def test_a_queue_that_does_not_answer_says_nothing_of_jobs(tmp_path: Path, shards) -> None:
    squeue = f"{ROW}; echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"

    answer = parse_poll(ask(tmp_path, poll_script(shards, NONCE), squeue=squeue), NONCE)

    assert not answer.queue_ok
    assert answer.queue == {}
    assert "Unable to contact slurm controller" in answer.complaint


@pytest.mark.parametrize(
    ("sacct", "state"),
    [
        ("echo '56_0|57|TIMEOUT|0:0|node1|60|Unknown|ns-run-1-a1'", Accounts.ANSWERED),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", Accounts.DISABLED),
        ("echo 'sacct: error: Connection refused' >&2; exit 1", Accounts.DOWN),
    ],
)
def test_what_became_of_the_accounts_is_known(
    tmp_path: Path, shards, sacct: str, state: Accounts
) -> None:
    script = poll_script(shards, NONCE, accounts_of=["56"])

    answer = parse_poll(ask(tmp_path, script, sacct=sacct), NONCE)

    assert answer.accounts_state is state
    assert (("56", 0) in answer.accounts) == (state is Accounts.ANSWERED)


def test_a_run_folder_that_is_gone_has_no_files(tmp_path: Path) -> None:
    layout = RunLayout(PurePosixPath(tmp_path / "gone"), "run-1")
    shard = WatchedShard(layout, 0, 1, ArrayJob("5", None, "ns-run-1-a1", 1), 1, "f")

    answer = parse_poll(ask(tmp_path, poll_script([shard], NONCE), squeue=ROW), NONCE)

    assert answer.files == {}
    assert answer.queue


def test_a_thousand_shards_are_one_command_of_few_processes() -> None:
    layout = RunLayout(PurePosixPath("/w"), "run-1")
    job = ArrayJob("5", None, "ns-run-1-a1", 1)

    script = poll_script([WatchedShard(layout, r, 1000, job, 1, "f") for r in range(1000)], NONCE)

    assert script.count("\nsqueue ") == 1
    assert script.count("\ngrep ") == 6


COMPLETE = f"""
@{NONCE} squeue
56_0|56|0|57|RUNNING|None|node1|N/A|ns-run-1-a1

@{NONCE} squeue-status 0

@{NONCE} files
/work/runs/run-1
shards/00000/progress.json:{{"done": 1}}

@{NONCE} end
"""


@given(st.integers(0, len(COMPLETE) - 1))
def test_an_answer_that_is_cut_anywhere_is_refused(length: int) -> None:
    assert parse_poll(COMPLETE, NONCE).queue_ok
    with pytest.raises(TransportError, match="cut off"):
        parse_poll(COMPLETE[:length], NONCE)


def test_the_answer_to_another_question_is_refused() -> None:
    with pytest.raises(TransportError):
        parse_poll(COMPLETE, "another")
