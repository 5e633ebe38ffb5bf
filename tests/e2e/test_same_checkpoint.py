"""Two runs of the same checkpoint at the same time: nothing is generated twice."""

import pytest
from support.stack import Stack

pytestmark = pytest.mark.e2e


def test_a_run_waits_for_another_that_generates_the_same_answers(stack: Stack) -> None:
    asked = {"tasks": ["Starter"], "limit": 6, "num_shards": 1, "cluster": "slow", "seed": 4242}
    started = [stack.trigger(asked) for _ in range(2)]
    done = [stack.wait(run_id) for run_id in started]
    assert [one.state for one in done] == ["success", "success"]
    first, second = sorted((one.summary() for one in done), key=lambda one: one["reused"])
    assert (first["reused"], first["submitted"]) == (0, 1)
    assert (second["reused"], second["submitted"]) == (6, 0)
    assert [one["accuracy"] for one in first["scores"]] == [
        one["accuracy"] for one in second["scores"]
    ]
