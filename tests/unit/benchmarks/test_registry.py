"""The registry is light enough for a DAG file and helps with misspelt names."""

import json
import subprocess
import sys

import pytest

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import GATED_DATASETS
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

HEAVY = ("datasets", "pandas", "pyarrow", "numpy", "math_verify", "sympy", "airflow", "pydantic")

PROBE = """
import json, sys
from nightshard.benchmarks import registry
titles = [registry.info(name).title for name in registry.names()]
print(json.dumps([[m for m in sys.modules if "." not in m], titles]))
"""


def probe() -> tuple[list[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROJECT_ROOT / "plugins")},
    )
    return json.loads(done.stdout)


def test_a_form_can_be_drawn_without_importing_any_scorer_or_loader() -> None:
    modules, titles = probe()
    assert set(HEAVY) & set(modules) == set()
    assert len(titles) == len(registry.names())


def test_all_benchmarks_are_there() -> None:
    assert registry.names() == (
        *("Starter", "MATH500", "AIME24", "AIME25", "AMC23", "HMMT25", "GSM8K"),
        *("GPQADiamond", "MMLUPro", "JEEBench"),
        *("HumanEval", "HumanEvalPlus", "MBPP", "MBPPPlus"),
        *("LiveCodeBench", *(f"LiveCodeBenchV{release}" for release in (3, 4, 5, 6))),
    )


@pytest.mark.parametrize(
    ("name", "problems", "repeats"),
    [
        *(("MATH500", 500, 1), ("AIME24", 30, 10), ("AIME25", 30, 10), ("AMC23", 40, 10)),
        *(("GPQADiamond", 198, 3), ("LiveCodeBench", 511, 6)),
    ],
)
def test_competitions_keep_the_counts_and_repeats_people_know(
    name: str, problems: int, repeats: int
) -> None:
    info = registry.info(name)
    assert (info.problems, info.repeats) == (problems, repeats)
    assert (info.sampling.temperature, info.sampling.top_p) == (0.7, 0.95)
    assert info.sampling.max_tokens == 32768


@pytest.mark.parametrize(
    ("typed", "hint"), [("math500", "MATH500"), ("AIME2024", "AIME24"), ("starters", "Starter")]
)
def test_a_misspelt_benchmark_is_answered_with_the_likely_one(typed: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"no benchmark '{typed}'; did you mean .*{hint}"):
        registry.get(typed)


def test_a_name_like_no_benchmark_is_answered_with_all_of_them() -> None:
    with pytest.raises(UserError, match="there are Starter, MATH500, AIME24, AIME25, AMC23"):
        registry.info("xyzzy")


def test_whatever_asks_a_gated_dataset_is_gated() -> None:
    hubs = {name: getattr(registry.get(name), "hub", None) for name in registry.names()}
    asking = [name for name, hub in hubs.items() if hub and hub.path in GATED_DATASETS]
    assert asking == ["GPQADiamond"]
    assert all(registry.info(name).gated for name in asking)


def test_questions_come_from_a_pinned_commit_but_for_three_that_follow_main() -> None:
    hubs = {name: getattr(registry.get(name), "hub", None) for name in registry.names()}
    loose = [name for name, hub in hubs.items() if hub is not None and hub.revision is None]
    assert loose == ["AIME25", "GPQADiamond", "JEEBench"]
