"""What a person asks for is checked before anything happens."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.benchmarks import registry
from nightshard.core.errors import UserError
from nightshard.core.presets import PRESETS
from nightshard.core.run_params import make_run_key, model_label, parse_run_params

pytestmark = pytest.mark.unit

GOOD = {"model": "org/name", "tasks": ["Starter"], "cluster": "local"}


def test_what_is_left_out_follows_benchmark_and_cluster() -> None:
    params = parse_run_params(GOOD)
    assert params.num_shards is None
    assert params.sampling_overrides() == {}


def test_sampling_overrides_hold_only_what_was_set() -> None:
    params = parse_run_params({**GOOD, "temperature": 0, "max_tokens": 64})
    assert params.sampling_overrides() == {"temperature": 0, "max_tokens": 64}


def test_a_form_without_question_files_means_the_hub() -> None:
    assert parse_run_params({**GOOD, "source": None}).source == {}


def test_a_task_named_twice_is_evaluated_once() -> None:
    assert parse_run_params({**GOOD, "tasks": ["A", " B ", "A"]}).tasks == ("A", "B")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": ""}, "model is '', which cannot be used; name a model"),
        ({"tasks": []}, "choose at least one benchmark"),
        ({"tasks": [" "]}, "choose at least one benchmark"),
        ({"num_shards": 0}, "num_shards is 0, which cannot be used; ask for at least 1 shard"),
        ({"max_job_hours": 0}, "give a number of hours above 0"),
        ({"max_job_hours": float("inf")}, "give a number of hours above 0"),
        ({"cluster": ""}, "name a profile of include/clusters"),
        ({"temperature": -1}, "give a number from 0"),
        ({"top_p": 0}, "give a number above 0 and at most 1"),
        ({"limit": 0}, "leave it empty for all problems"),
        ({"balance": "fair"}, "choose steal or static"),
        ({"chat_template_args": "no"}, "give a JSON object such as"),
        ({"shards": 3}, "There is no parameter 'shards'"),
        ({"source": {"MATH500": "x"}}, "source names MATH500, which is not among the tasks"),
    ],
)
def test_a_bad_value_gets_one_sentence(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_run_params({**GOOD, **change})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_run_key_is_safe_as_folder_and_job_name(model: str, dag_run_id: str) -> None:
    key = make_run_key(model, dag_run_id, datetime(2026, 11, 24, 1, 30, tzinfo=UTC))
    assert len(key) <= 80
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert key == make_run_key(model, dag_run_id, datetime(2026, 11, 24, 1, 30, tzinfo=UTC))


def test_two_dag_runs_of_one_minute_have_different_keys() -> None:
    when = datetime(2026, 11, 24, 1, 30, tzinfo=UTC)
    assert make_run_key("m", "run a", when) != make_run_key("m", "run b", when)


def test_a_model_is_called_by_its_folder_or_its_hub_id() -> None:
    assert model_label("/models/SmolLM2-135M/") == "SmolLM2-135M"
    assert model_label("org/name") == "org/name"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_stands_for_benchmarks_that_exist(name: str) -> None:
    params = parse_run_params({"model": "m", "cluster": "c", "tasks": ["x"], "preset": name})
    assert params.tasks == PRESETS[name].tasks
    assert set(params.tasks) <= set(registry.names())
    assert params.limit == PRESETS[name].limit
    assert parse_run_params(params.model_dump(mode="json")) == params


def test_a_limit_goes_before_a_presets_own() -> None:
    asked = {"model": "m", "cluster": "c", "tasks": [], "preset": "smoke", "limit": 3}
    assert parse_run_params(asked).limit == 3


def test_a_preset_that_is_not_there_gets_one_sentence() -> None:
    with pytest.raises(UserError, match=r"preset is 'all', .* choose one of smoke, six, math"):
        parse_run_params({"model": "m", "cluster": "c", "tasks": ["x"], "preset": "all"})


def test_a_number_of_shards_that_is_to_be_chosen_says_by_what() -> None:
    asked = {"model": "org/a", "tasks": ["Starter"], "cluster": "local"}
    auto = parse_run_params({**asked, "num_shards": "auto"})
    assert (auto.num_shards, auto.optimise, auto.chooses_shards) == (None, "balanced", True)
    rush = parse_run_params({**asked, "num_shards": "auto", "optimise": "rush"})
    assert (rush.optimise, rush.chooses_shards) == ("rush", True)
    number = parse_run_params({**asked, "num_shards": 4, "optimise": "rush"})
    assert not number.chooses_shards
    assert not parse_run_params(asked).chooses_shards
    with pytest.raises(UserError, match="num_shards is 'many'"):
        parse_run_params({**asked, "num_shards": "many"})
