"""What Slurm prints is read rightly, and what is no answer is no answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.commands import (
    SubmittedId,
    parse_parsable,
    rejection,
    scancel_command,
)
from nightshard.clusters.slurm import (
    STATE_OF,
    ShardState,
    compress_indices,
    expand_indices,
    parse_sacct,
    parse_squeue,
    state_of,
)

pytestmark = pytest.mark.unit

# From squeue(1), Slurm 22.05 to 25.05.
LONG_STATES = [
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "CONFIGURING", "COMPLETING", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PENDING", "PREEMPTED", "RUNNING", "RESV_DEL_HOLD"),
    *("REQUEUE_FED", "REQUEUE_HOLD", "REQUEUED", "RESIZING", "REVOKED", "SIGNALING"),
    *("SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED", "TIMEOUT", "LAUNCH_FAILED"),
    *("RECONFIG_FAIL", "EXPEDITING", "POWER_UP_NODE"),
]


@pytest.mark.parametrize("word", LONG_STATES)
def test_every_state_of_slurm_is_known(word: str) -> None:
    assert word in STATE_OF


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("CANCELLED by 1000", ShardState.CANCELLED),
        ("PENDING+", ShardState.WAITING),
        ("COMPLETING", ShardState.RUNNING),
        ("TIMEOUT", ShardState.TIME_LIMIT),
        ("NODE_FAIL", ShardState.NODE_FAILURE),
        ("OUT_OF_MEMORY", ShardState.OUT_OF_MEMORY),
        ("SOMETHING_NEW", ShardState.UNKNOWN),
        ("", ShardState.UNKNOWN),
    ],
)
def test_a_state_comes_down_to_one_of_ours(word: str, state: ShardState) -> None:
    assert state_of(word) is state


def test_a_refused_submission_is_no_failed_job() -> None:
    assert state_of("FAILED", "BadConstraints") is ShardState.REJECTED
    assert state_of("FAILED", "NonZeroExitCode") is ShardState.FAILED


def test_recorded_squeue_output_is_read() -> None:
    text = (
        "1_1|1|1|4|CANCELLED|None|node1|2026-11-24T22:59:07|0:07|ns-x-a1\n"
        "1_2|1|2|1|FAILED|NonZeroExitCode|node1|2026-11-24T22:59:07|1:00:07|ns-x-a1\n"
        "5_0|5|0|5|PENDING|BeginTime||2026-11-24T23:00:11|0:00|ns-y-a1\n"
        "9|9|N/A|9|RUNNING|None|node3|2026-11-24T23:00:11|2-00:00:01|interactive\n"
    )

    cancelled, failed, waiting, plain = parse_squeue(text)

    assert (cancelled.state, cancelled.reason) == (ShardState.CANCELLED, None)
    assert (failed.raw_id, failed.array_id, failed.index) == ("1", "1", 2)
    assert (waiting.state, waiting.reason, waiting.node) == (ShardState.WAITING, "BeginTime", None)
    assert (plain.index, plain.name) == (None, "interactive")
    assert [row.elapsed_s for row in (cancelled, failed, plain)] == [7, 3607, 172801]


def test_rows_of_other_jobs_are_passed_over_where_names_are_given() -> None:
    squeue = "".join(f"1_{i}|1|{i}|1|RUNNING|None|n|N/A|0:01|ns-{i}-a1\n" for i in range(3))
    sacct = "".join(f"1_{i}|1|COMPLETED|0:0|n|1|N/A|ns-{i}-a1\n" for i in range(3))

    assert [row.name for row in parse_squeue(squeue, {"ns-1-a1"})] == ["ns-1-a1"]
    assert [row.name for row in parse_sacct(sacct, {"ns-1-a1"})] == ["ns-1-a1"]


def test_recorded_sacct_output_is_read() -> None:
    text = (
        "1_0|3|FAILED|3:0|node1|3|2026-11-24T22:59:14|ns-x-a1\n"
        "1_1|4|CANCELLED by 0|0:0|node1|0|2026-11-24T22:59:14|ns-x-a1\n"
        "1_2|5|FAILED|0:9|node1|4|2026-11-24T22:59:14|ns-x-a1\n"
        "7_[1-2%1]|7|PENDING|0:0|None assigned|0|Unknown|ns-y-a1\n"
        "8|8|FAILED|1:0|None assigned|0|Unknown|ns-rejected-a1\n"
    )

    failed, cancelled, killed, first, second, rejected = parse_sacct(text)

    assert (failed.exit_code, failed.elapsed_s) == (3, 3)
    assert cancelled.state is ShardState.CANCELLED
    assert killed.exit_code == 137
    assert [first.index, second.index] == [1, 2]
    assert rejected.state is ShardState.REJECTED


def test_an_unexpanded_array_gives_a_row_for_each_element() -> None:
    rows = parse_squeue("56_[1,4-6%2]|56|1,4-6%2|56|PENDING|Priority||N/A|0:00|ns-x-a1\n")

    assert [row.index for row in rows] == [1, 4, 5, 6]
    assert {row.start for row in rows} == {None}


NOISE = st.text(max_size=60)


@given(st.lists(NOISE).map("\n".join))
def test_no_noise_makes_a_parser_fall(text: str) -> None:
    parse_squeue(text)
    parse_sacct(text)
    parse_parsable(text)
    rejection(text)


NAMES = st.from_regex(r"ns-[a-z0-9-]{1,20}-a[1-9]", fullmatch=True)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10**8),
            st.integers(0, 1000),
            st.sampled_from(LONG_STATES),
            st.sampled_from(["None", "Priority", "Nodes required are DOWN, DRAINED or reserved"]),
            NAMES,
        ),
        max_size=20,
    )
)
def test_what_squeue_prints_comes_back(elements: list[tuple[int, int, str, str, str]]) -> None:
    text = "".join(
        f"{job}_{index}|{job}|{index}|{job + index}|{word}|{reason}|node1|N/A|1:02|{name}\n"
        for job, index, word, reason, name in elements
    )

    rows = parse_squeue(text)

    assert [
        (int(r.array_id), r.index, r.word, r.reason or "None", r.name) for r in rows
    ] == elements


@given(st.sets(st.integers(0, 2000)))
def test_indices_written_as_slurm_does_come_back(indices: set[int]) -> None:
    assert expand_indices(compress_indices(indices)) == sorted(indices)
    assert expand_indices(f"[{compress_indices(indices)}%4]") == sorted(indices)


@pytest.mark.parametrize(
    ("stdout", "found"),
    [
        ("123\n", SubmittedId("123")),
        ("123;alpha\n", SubmittedId("123", "alpha")),
        ("Welcome!\nYour quota: 12 %\n123\n", SubmittedId("123")),
        ("123\nsbatch wrapper: thank you\n", SubmittedId("123")),
        ("", None),
        ("Submitted batch job\n", None),
    ],
)
def test_the_job_id_is_found_whatever_a_site_prints_around_it(
    stdout: str, found: SubmittedId | None
) -> None:
    assert parse_parsable(stdout) == found


@pytest.mark.parametrize(
    ("stderr", "sentence"),
    [
        (
            "sbatch: error: invalid partition specified: nopart\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
            "invalid partition specified: nopart; "
            "Batch job submission failed: Invalid partition name specified",
        ),
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            None,
        ),
        ("sbatch: error: Unable to contact slurm controller (connect failure)", None),
        (
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
            None,
        ),
        ("bash: line 1: something else", None),
        ("", None),
    ],
)
def test_only_a_clear_refusal_is_one(stderr: str, sentence: str | None) -> None:
    assert rejection(stderr) == sentence


def test_a_cancel_of_an_array_names_it_beside_its_id() -> None:
    assert scancel_command("ns-x-a1", "56") == ["scancel", "--name=ns-x-a1", "56"]
    assert scancel_command("ns-x-a2-r3") == ["scancel", "--name=ns-x-a2-r3"]
