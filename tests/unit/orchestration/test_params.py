"""The form of `evaluate` offers everything that a run takes, and nothing else."""

from pathlib import Path

import pytest
from airflow.sdk.exceptions import ParamValidationError

from nightshard.benchmarks import registry
from nightshard.core.run_params import RunParams, parse_run_params
from nightshard.core.settings import Settings
from nightshard.orchestration.params import evaluate_form

pytestmark = pytest.mark.unit

FORM = evaluate_form(Settings.from_env({}))


def test_each_parameter_of_a_run_is_a_field_of_the_form() -> None:
    assert set(FORM) == set(RunParams.model_fields)


@pytest.mark.parametrize("name", sorted(FORM))
def test_each_field_has_a_usable_default_a_title_and_a_description(name: str) -> None:
    field = FORM[name]
    field.resolve(field.value)
    assert field.schema["title"]
    assert field.description.endswith(".")
    assert field.schema["section"]


def test_the_form_as_it_opens_lacks_only_the_model() -> None:
    values = {name: field.value for name, field in FORM.items()}
    params = parse_run_params({**values, "model": "org/name"})
    assert params == RunParams(model="org/name", tasks=("Starter",), cluster="local")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_shards", 0),
        ("num_shards", "many"),
        ("optimise", "speed"),
        ("dry_run", "yes"),
        ("max_job_hours", 0),
        ("limit", 0),
        ("cluster", "nowhere"),
        ("temperature", -0.1),
        ("top_p", 1.1),
        ("max_tokens", 0),
        ("repeats", 0),
        ("seed", -1),
        ("tasks", "Starter"),
        ("force", "yes"),
        ("source", []),
        ("system_prompt", 3),
        ("balance", "fair"),
        ("chat_template_args", "no"),
    ],
)
def test_a_bad_value_is_refused_by_the_form_itself(name: str, value: object) -> None:
    with pytest.raises(ParamValidationError):
        FORM[name].resolve(value)


def test_benchmarks_and_clusters_are_offered_by_name(tmp_path: Path) -> None:
    assert FORM["tasks"].schema["examples"] == list(registry.names())
    assert {"local", "leonardo", "auto"} <= set(FORM["cluster"].schema["enum"])
    assert FORM["cluster"].value == "local"
    empty = evaluate_form(Settings.from_env({"NIGHTSHARD_CLUSTERS": str(tmp_path)}))
    assert empty["cluster"].value == ""
