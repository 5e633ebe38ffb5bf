"""Bad input fails before anything is staged, in one sentence, with nothing submitted."""

import shutil

import pytest
from support.stack import Stack

from nightshard.core.errors import UserError

pytestmark = pytest.mark.e2e

CASES = {
    "unknown task": ({"tasks": ["MATH50"]}, "There is no benchmark 'MATH50'; did you mean MATH500"),
    "more shards than questions": (
        {"tasks": ["Starter"], "limit": 2, "num_shards": 3},
        "3 shards were asked for, but there are only 2 requests",
    ),
    "a model that does not exist": (
        {"tasks": ["Starter"], "model": "/no/such/model"},
        "The model folder /no/such/model does not exist on cluster",
    ),
    "an unreachable cluster": (
        {"tasks": ["Starter"], "cluster": "unreachable"},
        "are refused; check the port and that sshd runs there",
    ),
    "a wrong host key": ({"tasks": ["Starter"], "cluster": "wrong-key"}, "HAS CHANGED"),
    "a full remote disk": (
        {"tasks": ["Starter"], "max_tokens": 2**31 - 1},
        "free some space or choose another workdir",
    ),
    "no connection": (
        {"tasks": ["Starter"], "cluster": "no-connection"},
        "Airflow has no connection 'nightshard_nowhere'",
    ),
}


@pytest.mark.parametrize(("conf", "sentence"), CASES.values(), ids=CASES.keys())
def test_it_says_what_is_wrong_and_submits_nothing(
    stack: Stack, conf: dict[str, object], sentence: str
) -> None:
    jobs = _job_ids(stack)
    runs = _remote_runs(stack)
    finished = stack.run(conf)
    failed = [task for task in finished.tasks if task["state"] == "failed"]
    assert len(failed) == 1
    assert sentence in finished.log(failed[0])
    assert _job_ids(stack) <= jobs  # ended ones may be forgotten meanwhile
    assert _remote_runs(stack) == runs


@pytest.mark.parametrize(
    "conf", [{"cluster": "nowhere"}, {"num_shards": 0}], ids=["unknown cluster", "zero shards"]
)
def test_the_form_refuses_it_at_once(stack: Stack, conf: dict[str, object]) -> None:
    (parameter,) = conf
    with pytest.raises(UserError, match=parameter):
        stack.run(conf)


def test_the_command_line_refuses_before_it_triggers(stack: Stack) -> None:
    answer = stack.cli("launch", "--model_name", str(stack.model), "--num_shards", "0")
    assert answer.returncode == 1
    assert "num_shards is 0, which cannot be used; ask for at least 1 shard" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_failed_shard_shows_the_last_lines_of_its_own_log(stack: Stack) -> None:
    broken = stack.settings.state / "broken-model"
    shutil.copytree(stack.model, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    finished = stack.run({"tasks": ["Starter"], "limit": 2, "model": str(broken)})
    assert finished.state == "failed"
    failed = [task for task in finished.tasks if task["state"] == "failed"]
    assert {task["task_id"] for task in failed} == {"shard"}
    log = finished.log(failed[0])
    assert "The last lines of" in log
    assert "safetensors" in log


def test_a_run_without_a_single_answer_is_not_called_a_score(stack: Stack) -> None:
    finished = stack.run({"tasks": ["Starter"], "limit": 2, "cluster": "too-short"})
    assert finished.state == "failed"
    failed = [task for task in finished.tasks if task["state"] == "failed"]
    assert {task["task_id"] for task in failed} == {"score"}


def _job_ids(stack: Stack) -> set[str]:
    """Slurm forgets ended jobs after a while, so only a new one tells anything."""
    return {line.split()[0] for line in stack.squeue()}


def _remote_runs(stack: Stack) -> set[str]:
    folder = stack.cluster.shared / "nightshard" / "runs"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()
