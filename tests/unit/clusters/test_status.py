"""A shard's state is judged from Slurm and its files together, never from one of them alone."""

import dataclasses
import json
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from nightshard.clusters.attempts import AttemptRecord
from nightshard.clusters.documents import Manifest, Progress
from nightshard.clusters.slurm import Row, ShardState, state_of
from nightshard.clusters.status import Evidence, Grace, judge
from nightshard.clusters.submit import ArrayJob
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

GRACE = Grace(missing_s=60, manifest_s=10)


def row(word: str, *, reason: str | None = None, exit_code: int | None = None) -> Row:
    return Row(
        array_id="56",
        index=0,
        raw_id="57",
        state=state_of(word, reason),
        word=word,
        reason=reason,
        node="node1",
        start="2026-11-24T23:00:00",
        name="ns-run-1-a1",
        exit_code=exit_code,
    )


def record(code: int) -> str:
    return json.dumps({"exit_code": code, "job_id": "57"})


@pytest.mark.parametrize(
    ("seen", "state", "final", "words"),
    [
        ({"queue": row("PENDING", reason="Priority")}, "waiting", False, "(Priority), expected"),
        (
            {"queue": row("PENDING", reason="PartitionTimeLimit")},
            "waiting",
            False,
            "will not start: max job hours is above the partition's time limit",
        ),
        (
            {"queue": row("PENDING", reason="launch failed requeued held")},
            "waiting",
            False,
            "Slurm holds it; `scontrol release` lets it go",
        ),
        ({"queue": row("RUNNING")}, "running", False, "running on node1"),
        ({"queue": row("COMPLETING"), "manifest": "good"}, "running", False, "running"),
        ({"queue": row("COMPLETED"), "manifest": "good"}, "ended_well", True, "10 answers, 1 of"),
        ({"queue": row("COMPLETED")}, "running", False, "waiting for its manifest"),
        ({"queue": row("COMPLETED"), "ended_s": 11}, "failed", True, "but it left no manifest"),
        ({"queue": row("TIMEOUT"), "manifest": "good"}, "ended_well", True, "done on node1"),
        ({"queue": row("TIMEOUT")}, "time_limit", True, "stopped at the time limit on node1"),
        ({"queue": row("NODE_FAIL")}, "node_failure", True, "its node failed"),
        ({"queue": row("PREEMPTED")}, "preempted", True, "preempted by Slurm"),
        ({"queue": row("CANCELLED")}, "cancelled", True, "cancelled"),
        ({"queue": row("OUT_OF_MEMORY")}, "out_of_memory", True, "out of memory"),
        ({"queue": row("FAILED"), "exit_record": record(3)}, "out_of_memory", True, "exit code 3"),
        ({"queue": row("FAILED"), "exit_record": record(2)}, "failed", True, "configuration"),
        ({"queue": row("FAILED"), "exit_record": record(76)}, "failed", True, "holds the claim"),
        ({"queue": row("FAILED")}, "running", False, "waiting for its exit code"),
        ({"queue": row("FAILED"), "ended_s": 11}, "failed", True, "failed on node1"),
        ({"accounts": row("FAILED", exit_code=4)}, "failed", True, "engine crashed (exit code 4)"),
        ({"queue": row("FAILED", reason="BadConstraints")}, "rejected", True, "refused by Slurm"),
        ({"accounts": row("RUNNING")}, "unknown", False, "does not list it"),
        ({"missing_s": 59}, "unknown", False, "does not list it"),
        ({"missing_s": 61}, "unknown", True, "without a trace of its end"),
        ({"missing_s": 0, "manifest": "good"}, "ended_well", True, "done"),
        ({"exit_record": record(4)}, "failed", True, "the engine crashed"),
        ({"exit_record": record(0)}, "unknown", False, "waiting for its manifest"),
        (
            {"exit_record": record(0), "missing_s": 11},
            "failed",
            True,
            "exit code 0, but it left no",
        ),
        # sacct may still say that it was preempted or hit the time limit.
        ({"exit_record": record(75), "accounts_answer": True}, "unknown", False, "waiting"),
        (
            {"exit_record": record(75), "accounts_answer": True, "missing_s": 61},
            "failed",
            True,
            "interrupted",
        ),
    ],
)
def test_a_shard_is_judged_by_all_that_is_known(lab, seen, state, final, words) -> None:
    if seen.get("manifest") == "good":
        seen = {**seen, "manifest": lab.manifest_text()}

    status = judge(lab.watched(), Evidence(**seen), GRACE)

    assert (status.state, status.final) == (ShardState(state), final)
    assert words in status.message
    assert (status.manifest is not None) == status.succeeded


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rows": 9}, "rows 9, expected 10"),
        ({"fingerprint": "e" * 32}, "fingerprint eee"),
        ({"run_key": "run-2"}, "run_key run-2, expected run-1"),
        ({"rank": 1}, "rank 1, expected 0"),
        ({"world_size": 8}, "world_size 8"),
        ({"contract_version": 3}, "cannot be read"),
        ({"sha256": "short"}, "cannot be read"),
    ],
)
def test_a_manifest_that_disagrees_does_not_make_a_shard_done(lab, changes, fault: str) -> None:
    seen = Evidence(queue=row("COMPLETED"), manifest=lab.manifest_text(**changes), ended_s=11)

    status = judge(lab.watched(), seen, GRACE)

    assert status.state is ShardState.FAILED
    assert fault in status.message


@pytest.mark.parametrize("rows", [0, 9, 25])
def test_a_shard_that_shares_its_work_is_done_with_any_number_of_answers(lab, rows: int) -> None:
    manifest = lab.manifest_text(rows=rows, blocks=[])
    assert judge(
        lab.watched(), Evidence(queue=row("COMPLETED"), manifest=manifest), GRACE
    ).succeeded


def test_a_torn_manifest_is_waited_for(lab) -> None:
    seen = Evidence(queue=row("COMPLETED"), manifest=lab.manifest_text()[:-20], ended_s=1)

    assert not judge(lab.watched(), seen, GRACE).final


def test_an_earlier_attempts_manifest_does_not_end_a_job_that_slurm_does_not_list_yet(lab) -> None:
    second = lab.watched(job=ArrayJob("60", None, "ns-run-1-a2-r0", 2))
    fresh = Evidence(manifest=lab.manifest_text(attempt=1), missing_s=3)

    assert not judge(second, fresh, GRACE).final
    assert judge(second, replace(fresh, missing_s=61), GRACE).succeeded
    assert judge(second, replace(fresh, queue=row("COMPLETED")), GRACE).succeeded


def test_progress_of_an_earlier_attempt_is_not_this_ones(lab) -> None:
    def progress(attempt: int) -> Progress | None:
        text = lab.progress_text(attempt=attempt)
        return judge(lab.watched(), Evidence(queue=row("RUNNING"), progress=text), GRACE).progress

    assert progress(2) is None
    assert progress(1) is not None


def test_the_documents_are_those_of_the_contract(lab) -> None:
    schemas = PROJECT_ROOT / "shard_worker" / "src" / "shard_worker" / "schemas"
    for model, name, text in (
        (Manifest, "manifest", lab.manifest_text()),
        (Progress, "progress", lab.progress_text()),
    ):
        schema = json.loads((schemas / f"{name}.schema.json").read_text())
        Draft202012Validator(schema).validate(json.loads(text))
        assert set(model.model_fields) == set(schema["properties"]) >= set(schema["required"])
        assert model.read(text) is not None


def test_a_job_that_runs_long_after_its_time_limit_is_overdue(lab) -> None:
    shard = dataclasses.replace(lab.watched(), max_job_minutes=60)

    def status(elapsed_s: int | None):  # type: ignore[no-untyped-def]
        running = dataclasses.replace(row("RUNNING"), elapsed_s=elapsed_s)
        return judge(shard, Evidence(queue=running), GRACE)

    assert [status(one).overdue for one in (None, 3600, 3600 + 900)] == [False] * 3
    late = status(3600 + 901)
    assert late.overdue
    assert late.message == "running on node1, long after its time limit"


def test_an_attempt_whose_end_was_written_down_is_not_judged_again(lab) -> None:
    ended = AttemptRecord(
        rank=0,
        attempt=1,
        job_id="56_0",
        job_name="ns-run-1-a1",
        state="preempted",
        node="node2",
        message="preempted by Slurm on node2",
        again=True,
        decision="again",
        ended_at="2026-11-25T01:00:00+00:00",
    )

    # Slurm may have given its id to another job, or have forgotten it.
    status = judge(lab.watched(), Evidence(record=ended.to_bytes().decode()), GRACE)

    assert (status.state, status.final, status.record) == (ShardState.PREEMPTED, True, ended)
    other = ended.model_copy(update={"attempt": 2})
    seen = Evidence(queue=row("RUNNING"), record=other.to_bytes().decode())
    assert judge(lab.watched(), seen, GRACE).state is ShardState.RUNNING
