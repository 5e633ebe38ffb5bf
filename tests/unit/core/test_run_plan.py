"""A plan travels as JSON and gives the worker its orders."""

import dataclasses
import json

import jsonschema
import pytest

from nightshard.core.errors import UserError
from nightshard.core.fingerprint import ModelDescription
from nightshard.core.run_params import parse_run_params
from nightshard.core.run_plan import (
    RunPlan,
    check_description,
    choose_job_minutes,
    choose_num_shards,
)
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

MODEL = ModelDescription(
    path="/models/m",
    revision="abc",
    chat_template_sha256="def",
    max_model_len=2048,
    engine="vllm",
    engine_version="0.32.0",
    worker_version="0.1.0",
    contract_version=2,
)
ENGINE = {
    "name": "vllm",
    "dtype": "float32",
    "tensor_parallel": 1,
    "max_model_len": None,
    "gpu_memory_utilization": None,
    "enforce_eager": True,
    "options": {},
}
PLAN = RunPlan(
    run_key="20261124-0130-m-abcdef",
    params=parse_run_params({"model": "/models/m", "tasks": ["Starter"], "cluster": "local"}),
    model=MODEL,
    engine=ENGINE,
    num_shards=2,
    max_job_minutes=60,
    worker="/work/worker/shard_worker-abc.zip",
    started_at="2026-11-24T01:30:00+00:00",
    dag_run_id="manual",
)


def test_a_plan_survives_its_way_through_json() -> None:
    assert RunPlan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN


def test_the_spec_is_what_the_worker_accepts() -> None:
    schemas = PROJECT_ROOT / "shard_worker" / "src" / "shard_worker" / "schemas"
    schema = json.loads((schemas / "spec.schema.json").read_text())
    jsonschema.validate(PLAN.spec(world_size=2), schema)


@pytest.mark.parametrize(
    "change", [{"revision": "x"}, {"chat_template_sha256": "x"}, {"engine_version": "0.33.0"}]
)
def test_what_can_change_an_answer_changes_the_fingerprint(change: dict[str, str]) -> None:
    other = dataclasses.replace(PLAN, model=dataclasses.replace(MODEL, **change))
    assert other.fingerprint != PLAN.fingerprint


def test_parallelism_and_memory_leave_the_fingerprint_alone() -> None:
    engine = {**ENGINE, "tensor_parallel": 4, "gpu_memory_utilization": 0.5, "enforce_eager": False}
    assert dataclasses.replace(PLAN, engine=engine).fingerprint == PLAN.fingerprint


def test_a_worker_of_another_contract_is_refused() -> None:
    with pytest.raises(UserError, match="speaks contract 3"):
        check_description(dataclasses.replace(MODEL, contract_version=3))


def test_shards_and_hours_follow_the_user_then_the_profile() -> None:
    assert choose_num_shards(None, 8, 64) == 8
    assert choose_num_shards(3, 8, 64) == 3
    assert choose_job_minutes(None, 2, 24) == 120
    assert choose_job_minutes(0.01, 2, 24) == 1


def test_more_than_the_profile_allows_is_refused() -> None:
    with pytest.raises(UserError, match="allows 64"):
        choose_num_shards(65, 8, 64)
    with pytest.raises(UserError, match="allows 24"):
        choose_job_minutes(25, 2, 24)


def test_chat_template_arguments_reach_the_worker_and_change_the_fingerprint() -> None:
    arguments = {"enable_thinking": False}
    params = PLAN.params.model_copy(update={"chat_template_args": arguments})
    thinking = dataclasses.replace(PLAN, params=params)
    assert thinking.spec(2)["chat_template_args"] == arguments
    assert thinking.fingerprint != PLAN.fingerprint


@pytest.mark.parametrize("balance", ["steal", "static"])
def test_how_work_is_balanced_reaches_the_worker_and_leaves_the_fingerprint(balance: str) -> None:
    plan = dataclasses.replace(PLAN, balance=balance)
    assert plan.spec(2)["balance"] == balance
    assert plan.fingerprint == PLAN.fingerprint


def test_an_adapter_reaches_the_worker_and_is_another_model() -> None:
    params = PLAN.params.model_copy(update={"adapter": "/adapters/tuned", "logprobs": True})
    adapter = {"path": "/adapters/tuned", "revision": "sha256:ad"}
    tuned = dataclasses.replace(
        PLAN, params=params, model=dataclasses.replace(PLAN.model, adapter=adapter)
    )
    spec = tuned.spec(2)
    assert spec["model"]["adapter"] == {"name": "tuned", "path": "/adapters/tuned"}
    assert spec["engine"]["logprobs"] is True
    assert tuned.model_name == f"{PLAN.model_name}+tuned"
    assert tuned.model_revision == f"{PLAN.model.revision}+sha256:ad"
    assert tuned.fingerprint != PLAN.fingerprint
    assert RunPlan.from_dict(tuned.to_dict()) == tuned
