"""Tasks of lm-evaluation-harness, with their own prompts, filters and metrics."""

import json
from pathlib import Path

import pytest

from nightshard.benchmarks import harness, registry
from nightshard.benchmarks.judges.pool import JudgeError, Judgement, JudgePool
from nightshard.benchmarks.requests import build_requests
from nightshard.core.errors import UserError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TASK = """
task: nightshard_sums
dataset_path: json
dataset_kwargs:
  data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}
output_type: {output}
fewshot_split: train
test_split: test
num_fewshot: 2
fewshot_config: {{sampler: first_n}}
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
generation_kwargs:
  until: ["Question:"]
  do_sample: false
  max_gen_toks: 64
filter_list:
  - name: strict
    filter:
      - function: regex
        regex_pattern: "The answer is (\\\\-?[0-9]+)."
      - function: take_first
  - name: flexible
    filter:
      - function: regex
        group_select: -1
        regex_pattern: "(-?[0-9]+)"
      - function: take_first
metadata:
  version: 3.0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own task, with local data."""
    monkeypatch.setenv("NIGHTSHARD_BENCHMARKS", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name, count in (("train", 3), ("test", 5)):
        rows = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.yaml").write_text(TASK.format(folder=tmp_path, output="generate_until"))
    for cached in (harness.get, harness._load):
        cached.cache_clear()
    harness._JUDGES.clear()
    return tmp_path


def test_a_task_is_asked_with_its_own_prompt_and_sampling(folder: Path) -> None:
    benchmark = registry.get("lm-eval:nightshard_sums")

    problems = benchmark.load()
    request = build_requests(benchmark, problems)[4]

    assert len(problems) == benchmark.info.problems == 5
    (message,) = request.messages
    assert message["content"].count("Question:") == 3
    assert message["content"].endswith("Question: 4 + 1?\nAnswer:")
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.0, 64)
    assert request.sampling.stop == ("Question:",)


def test_an_answer_is_filtered_and_scored_as_the_task_says(folder: Path) -> None:
    strict = registry.get("lm-eval:nightshard_sums")
    flexible = registry.get("lm-eval:nightshard_sums@flexible")
    problem = strict.load()[2]

    said = "We add. The answer is 3."
    loose = "2 and 1 make 3"

    assert strict.judge(problem, said).correct
    assert not strict.judge(problem, loose).correct
    verdict = flexible.judge(problem, loose)
    assert (verdict.correct, verdict.extracted) == (True, "3")
    assert verdict.reason == "exact_match=1 (flexible)"
    with pytest.raises(UserError, match="has no filter 'nope'; choose strict, flexible"):
        registry.get("lm-eval:nightshard_sums@nope").judge(problem, said)


def test_it_is_judged_in_processes_of_its_own_without_its_data(folder: Path) -> None:
    benchmark = registry.get("lm-eval:nightshard_sums")
    problems = benchmark.load()
    (folder / "test.jsonl").unlink()

    outcomes = JudgePool(1).judge(
        Judgement(benchmark.info.name, problem, f"The answer is {number + 1 - number % 2}.")
        for number, problem in enumerate(problems)
    )

    assert not [one for one in outcomes if isinstance(one, JudgeError)], outcomes
    assert [getattr(one, "correct", None) for one in outcomes] == [
        True,
        False,
        True,
        False,
        True,
    ], outcomes


def test_a_task_on_gated_questions_is_gated_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not registry.get("lm-eval:nightshard_sums").info.gated
    monkeypatch.setattr(harness, "GATED_DATASETS", {"json"})
    harness.get.cache_clear()
    assert registry.get("lm-eval:nightshard_sums").info.gated


IFEVAL = """
task: nightshard_ifeval
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/prompts.jsonl}}
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: prompt
doc_to_target: 0
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 1280}}
process_results: !function checks.process_results
metric_list:
  - {{metric: prompt_level_strict_acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 4.0}}
"""


def test_instructions_are_checked_by_their_own_published_checkers(folder: Path) -> None:
    """The same checkers as ``lm-eval:ifeval``, whose prompts are on the Hub."""
    row = {
        "key": 1,
        "prompt": "Write of a river, in lower case, without commas.",
        "instruction_id_list": [
            *("change_case:english_lowercase", "punctuation:no_comma", "keywords:existence"),
        ],
        "kwargs": [{"keywords": None}, {"keywords": None}, {"keywords": ["river"]}],
    }
    (folder / "prompts.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "checks.py").write_text(
        "from lm_eval.tasks.ifeval.utils import process_results  # noqa: F401\n"
    )
    (folder / "ifeval.yaml").write_text(IFEVAL.format(folder=folder))
    benchmark = registry.get("lm-eval:nightshard_ifeval")
    (problem,) = benchmark.load()
    texts = {
        "no capitals and the word river here": True,
        "<think>Hm, no Comma.</think>the river is wide": True,
        "the river, wide": False,
        "The river": False,
        "no capitals here": False,
        "": False,
    }
    assert {text: benchmark.judge(problem, text).correct for text in texts} == texts


SCORES = """
import re


def overlap(predictions, references, **kwargs):
    said, wanted = (set(re.findall("[0-9]", text)) for text in (predictions[0], references[0]))
    return {"overlap": len(said & wanted) / len(said | wanted or {""})}
"""


def test_a_metric_between_right_and_wrong_gives_credit(folder: Path) -> None:
    (folder / "scores.py").write_text(SCORES)
    text = TASK.format(folder=folder, output="generate_until")
    own = text.replace("metric: exact_match", "metric: !function scores.overlap")
    (folder / "sums.yaml").write_text(own)
    benchmark = registry.get("lm-eval:nightshard_sums@flexible")
    problem = benchmark.load()[2]

    assert benchmark.judge(problem, "3").correct
    half = benchmark.judge(problem, "34")
    assert (half.correct, half.credit) == (False, 0.5)
    none = benchmark.judge(problem, "4")
    assert (none.correct, none.credit) == (False, None)


def test_a_task_that_needs_log_likelihoods_is_refused(folder: Path) -> None:
    text = TASK.format(folder=folder, output="loglikelihood")
    head, _, _ = text.partition("metric_list:")
    (folder / "sums.yaml").write_text(head)
    with pytest.raises(UserError, match="needs loglikelihood and not a generated text"):
        registry.get("lm-eval:nightshard_sums").load()


def test_an_unknown_task_and_a_source_are_sentences(folder: Path) -> None:
    with pytest.raises(UserError, match="has no task 'nightshard_none'; its list is"):
        registry.get("lm-eval:nightshard_none").load()
    with pytest.raises(UserError, match="brings its own questions"):
        registry.get("lm-eval:nightshard_sums").load("file.jsonl")
    with pytest.raises(UserError, match="names no task"):
        registry.get("lm-eval:")
