"""Which runs a sweep starts."""

import pytest

from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.orchestration.steps.sweeping import plan_sweep
from nightshard.orchestration.sweep_tasks import sweep_form

pytestmark = pytest.mark.unit

ASKED = {"model": "org/a", "adapter": "org/b", "tasks": ["Starter"], "cluster": "local"}


def test_each_number_of_shards_is_a_run_of_its_own_that_generates_everything() -> None:
    runs = plan_sweep({**ASKED, "shards": [4, 1, 4]}, "scaling_sweep", "run 1")
    assert [run["conf"]["num_shards"] for run in runs] == [1, 4]
    assert len({run["trigger_run_id"] for run in runs}) == 2
    for run in runs:
        conf = run["conf"]
        assert (conf["force"], conf["publish"], conf["adapter"]) == (True, "no", "org/b")
        assert conf["asked_by"] == "scaling_sweep/run 1"
    again = plan_sweep({**ASKED, "shards": [1]}, "scaling_sweep", "run 2")
    assert again[0]["trigger_run_id"] != runs[0]["trigger_run_id"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shards": []}, "shards is empty"),
        ({"shards": [0]}, "shards is empty or holds no whole numbers"),
        ({"shards": [1], "cluster": "auto"}, "on one cluster; name it in place of auto"),
        ({"shards": [1], "temperature": -1}, "temperature is -1"),
    ],
)
def test_what_cannot_be_swept_gets_one_sentence(change: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan_sweep({**ASKED, **change}, "scaling_sweep", "run 1")


def test_the_form_asks_what_a_sweep_uses_and_no_more() -> None:
    form = sweep_form(Settings.from_env({}))
    assert {"model", "adapter", "tasks", "cluster", "shards"} <= set(form)
    assert not {"num_shards", "force", "publish", "dry_run", "asked_by"} & set(form)
