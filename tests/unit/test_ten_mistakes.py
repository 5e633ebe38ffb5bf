"""What the predecessor got wrong, each mistake as one small test; the suites go deeper."""

import collections
import json
import shlex
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pytest
from support.merging import merge_shards

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem, Verdict
from nightshard.benchmarks.judges.choice import judge as judge_choice
from nightshard.benchmarks.judges.code import same_output
from nightshard.benchmarks.judges.pool import JudgeError
from nightshard.benchmarks.requests import build_requests
from nightshard.clusters.attempts import AttemptRecord, RetryLimits, decide
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import render_script
from nightshard.clusters.submission import Submission
from nightshard.core.errors import IncompleteRunError, UserError
from nightshard.core.settings import PROJECT_ROOT
from nightshard.core.statistics import clustered_proportion
from nightshard.results.arrow import MERGED_SCHEMA, REQUEST_SCHEMA, requests_to_table
from nightshard.results.merge import check_manifests
from nightshard.results.score import score

pytestmark = pytest.mark.unit

PROBLEMS = [Problem(f"p{number}", f"q{number}", str(number)) for number in range(4)]
SCHEMA = json.loads(
    (PROJECT_ROOT / "shard_worker/src/shard_worker/schemas/manifest.schema.json").read_text()
)


def answers(texts: dict[str, str | None]) -> pa.Table:
    rows = [
        {
            "request_id": one.request_id,
            "benchmark": one.benchmark,
            "problem_id": one.problem_id,
            "repeat_idx": one.repeat_idx,
            "text": texts[one.problem_id],
            "finish_reason": "stop",
        }
        for one in build_requests(registry.get("MATH500"), PROBLEMS)
        if one.problem_id in texts
    ]
    return pa.Table.from_pylist(rows, schema=MERGED_SCHEMA)


def test_1_the_gold_option_is_not_always_d_and_an_article_is_no_option(tmp_path: Path) -> None:
    rows = [
        {
            "Question": f"question {number}",
            "Correct Answer": "right",
            **{f"Incorrect Answer {wrong}": f"wrong {wrong}" for wrong in (1, 2, 3)},
        }
        for number in range(60)
    ]
    file = tmp_path / "gpqa.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    golds = collections.Counter(one.gold for one in registry.get("GPQADiamond").load(str(file)))
    assert set(golds) == set("ABCD")
    assert judge_choice("A", "This is a hard question.").extracted is None


def test_2_a_missing_answer_is_not_a_wrong_one() -> None:
    requests = requests_to_table(build_requests(registry.get("MATH500"), PROBLEMS))
    card = score(
        requests,
        {"MATH500": PROBLEMS},
        answers({"p0": "0", "p1": "1"}),
        judge=lambda work: [Verdict(one.text == one.problem.gold, one.text, "") for one in work],
    )
    accuracy = next(one for one in card.metrics if one.metric == "accuracy")
    assert (accuracy.value, accuracy.coverage, accuracy.partial) == (1.0, 0.5, True)
    with pytest.raises(IncompleteRunError, match="4 of 4 answers are missing"):
        merge_shards(requests, [], run_key="r", fingerprint="f", manifest_schema=SCHEMA)


def test_3_a_changed_question_never_meets_an_old_answer() -> None:
    benchmark = registry.get("MATH500")
    before = {one.request_id for one in build_requests(benchmark, PROBLEMS)}
    changes = (
        build_requests(benchmark, PROBLEMS, system_prompt="Be brief."),
        build_requests(benchmark, PROBLEMS, sampling_overrides={"max_tokens": 7}),
        build_requests(benchmark, [Problem(one.problem_id, "other", "1") for one in PROBLEMS]),
    )
    for requests in changes:
        assert before.isdisjoint(one.request_id for one in requests)
    more = build_requests(benchmark, PROBLEMS, repeats=2)
    assert before < {one.request_id for one in more}


def test_4_outputs_of_another_split_are_never_mixed_in() -> None:
    def manifest(rank: int, size: int) -> dict[str, object]:
        return {"rank": rank, "world_size": size, "run_key": "r", "fingerprint": "f"} | {
            "output_file": f"shard-{rank:05d}-of-{size:05d}.parquet"
        }

    with pytest.raises(IncompleteRunError, match="Outputs of 2 shards and of 8 shards"):
        check_manifests(
            [manifest(0, 2), manifest(1, 8)],
            run_key="r",
            fingerprint="f",
            manifest_schema={"type": "object"},
        )


def test_5_a_shard_at_its_time_limit_goes_on_and_does_not_loop_for_ever() -> None:
    def ended(attempt: int, done: int) -> AttemptRecord:
        return AttemptRecord(
            rank=0,
            attempt=attempt,
            job_id="7_0",
            job_name="n",
            state="time_limit",
            done=done,
            message="",
            ended_at="2026-11-24T00:00:00+00:00",
        )

    assert decide([ended(1, 5)], RetryLimits()).again
    assert not decide([ended(1, 5), ended(2, 5)], RetryLimits()).again
    assert not decide([ended(number, number) for number in range(1, 5)], RetryLimits()).again


def test_6_each_request_has_its_own_seed_and_the_error_is_over_problems() -> None:
    requests = build_requests(registry.get("AIME24"), PROBLEMS)
    assert len({one.sampling.seed for one in requests}) == len(requests) == 40
    agreeing = [(problem, problem % 2 == 0) for problem in range(4) for _ in range(10)]
    assert clustered_proportion(agreeing).stderr == pytest.approx(0.5 / 3**0.5)


def test_7_code_is_judged_by_lines_in_a_sandbox_and_starter_code_is_shown() -> None:
    gold = json.dumps({"starter": "class Solution:\n    def f(self): ..."})
    shown = registry.get("LiveCodeBench").messages(Problem("p", "Do it.", gold))[0]["content"]
    assert "class Solution" in shown
    assert same_output("1 \n2\n\n", "1\n2")
    assert registry.info("LiveCodeBench").sandboxed


def test_8_gated_questions_are_known_as_such_and_golds_stay_at_home() -> None:
    assert registry.info("GPQADiamond").gated
    assert not {"gold", "answer", "problem", "extracted"} & set(REQUEST_SCHEMA.names)


def test_9_nothing_is_built_into_a_shell_string() -> None:
    value = "$(touch harm); `id` 'x"
    profile = ClusterProfile.model_validate(
        {
            "name": "site",
            "title": "Site",
            "ssh_conn_id": "site",
            "workdir": "/work",
            "worker": {"python": "/p", "env": {"VALUE": value}},
            "models": {"dir": "/m"},
        }
    )
    layout = RunLayout(PurePosixPath("/work"), "run-1")
    script = render_script(
        profile,
        Submission(layout, 1, range(1), 0, "a1"),
        world_size=1,
        max_job_minutes=5,
        worker_zip="/w.zip",
        templates=PROJECT_ROOT / "include" / "sbatch",
    )
    line = next(line for line in script.splitlines() if line.startswith("export VALUE="))
    assert shlex.split(line)[1] == f"VALUE={value}"
    with pytest.raises(UserError, match="There is no benchmark"):
        registry.get("MATH500; rm -rf /")


def test_10_one_benchmark_s_failure_leaves_the_other_scores_standing() -> None:
    both = [
        *build_requests(registry.get("MATH500"), PROBLEMS),
        *build_requests(registry.get("GSM8K"), PROBLEMS),
    ]
    rows = [
        {
            "request_id": one.request_id,
            "benchmark": one.benchmark,
            "problem_id": one.problem_id,
            "repeat_idx": 0,
            "text": one.problem_id[1:],
            "finish_reason": "stop",
        }
        for one in both
    ]
    card = score(
        requests_to_table(both),
        {"MATH500": PROBLEMS, "GSM8K": PROBLEMS},
        pa.Table.from_pylist(rows, schema=MERGED_SCHEMA),
        judge=lambda work: [
            JudgeError("broken")
            if one.benchmark == "GSM8K"
            else Verdict(one.text == one.problem.gold, one.text, "")
            for one in work
        ],
    )
    assert "broken" in card.failures["GSM8K"]
    assert {one.value for one in card.metrics if one.metric == "accuracy"} == {1.0}
