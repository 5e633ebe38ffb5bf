"""A changed prompt or question set must come with a new version.

The version is part of every request id, so an old answer can never be taken for one to a new
prompt. After a change on purpose, bump ``version`` of the benchmark and add its line below.
"""

import hashlib
import json

import pytest

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.starter import QUESTIONS
from nightshard.core.hashing import content_id

pytestmark = pytest.mark.unit

SAMPLE = Problem("sample", "What is $1 + 1$ {in braces}?", "2")
PROGRAM = Problem("sample", SAMPLE.question, json.dumps({"starter": "class Solution: {}"}))
JEE = Problem("sample", SAMPLE.question, '{"type": "Integer", "gold": "2"}')
CODE = [name for name in registry.names() if registry.info(name).sandboxed]

PROMPTS = {
    ("Starter", "1"): "c5c40d1850220f73fb2d6aa35faec4af",
    ("MATH500", "1"): "04314a16e16a2008eed97a6b81e569f8",
    ("AIME24", "1"): "04314a16e16a2008eed97a6b81e569f8",
    ("AIME25", "1"): "04314a16e16a2008eed97a6b81e569f8",
    ("AMC23", "1"): "04314a16e16a2008eed97a6b81e569f8",
    ("HMMT25", "1"): "04314a16e16a2008eed97a6b81e569f8",
    ("GSM8K", "1"): "04314a16e16a2008eed97a6b81e569f8",
    ("GPQADiamond", "1"): "2ed147fa2e3fb6c3600d3c2018083333",
    ("MMLUPro", "1"): "2ed147fa2e3fb6c3600d3c2018083333",
    ("HumanEval", "1"): "d8fd9f2f499632309f10b0297dd56d35",
    ("HumanEvalPlus", "1"): "d8fd9f2f499632309f10b0297dd56d35",
    ("MBPP", "1"): "b3bfbfeeef0c5296b75694bcf9394477",
    ("MBPPPlus", "1"): "b3bfbfeeef0c5296b75694bcf9394477",
    ("JEEBench", "1"): "a70a37aace626ba7e50ee90c398cfdc1",
    ("LiveCodeBenchV3", "1"): "bd04a4d0391de528fd35bec17ebe3cbb",
    ("LiveCodeBenchV4", "1"): "bd04a4d0391de528fd35bec17ebe3cbb",
    ("LiveCodeBench", "1"): "bd04a4d0391de528fd35bec17ebe3cbb",
    ("LiveCodeBenchV5", "1"): "bd04a4d0391de528fd35bec17ebe3cbb",
    ("LiveCodeBenchV6", "1"): "bd04a4d0391de528fd35bec17ebe3cbb",
}
QUESTION_FILES = {"1": "821e8d088fa76659afb4b51fb7187fde6a3188281d30d68137d7a0001c9643ed"}
BUMP = "changed while its version stayed; bump BenchmarkInfo.version and add the new hash here"


@pytest.mark.parametrize("name", registry.names())
def test_a_prompt_never_changes_inside_a_version(name: str) -> None:
    benchmark = registry.get(name)
    rendered = content_id(benchmark.messages(sample(name), "Be brief."))
    frozen = PROMPTS.get((name, benchmark.info.version))
    assert rendered == frozen, f"the prompt of {name} {BUMP}: {rendered}"


def test_the_bundled_questions_never_change_inside_a_version() -> None:
    digest = hashlib.sha256(QUESTIONS.read_bytes()).hexdigest()
    frozen = QUESTION_FILES.get(registry.info("Starter").version)
    assert digest == frozen, f"starter.jsonl {BUMP}: {digest}"


def sample(name: str) -> Problem:
    if name == "JEEBench":
        return JEE
    return PROGRAM if name in CODE else SAMPLE


@pytest.mark.parametrize("name", CODE)
def test_a_prompt_for_code_shows_the_starter_code_and_asks_for_a_block(name: str) -> None:
    (message,) = registry.get(name).messages(PROGRAM)
    assert SAMPLE.question in message["content"]
    assert ("class Solution: {}" in message["content"]) == ("LiveCodeBench" in name)
    assert "```python" in message["content"]


@pytest.mark.parametrize("name", [one for one in registry.names() if one not in CODE])
def test_a_prompt_shows_the_question_and_asks_for_a_box(name: str) -> None:
    messages = registry.get(name).messages(sample(name))
    assert [message["role"] for message in messages] == ["user"]
    assert SAMPLE.question in messages[0]["content"]
    assert "\\boxed{}" in messages[0]["content"]


@pytest.mark.parametrize("name", registry.names())
def test_a_system_prompt_comes_first_and_an_empty_one_not_at_all(name: str) -> None:
    benchmark = registry.get(name)
    with_one = benchmark.messages(sample(name), "Be brief.")
    assert with_one[0] == {"role": "system", "content": "Be brief."}
    without = benchmark.messages(sample(name))
    assert with_one[1:] == without == benchmark.messages(sample(name), "")
