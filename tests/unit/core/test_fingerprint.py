"""A fingerprint changes with all that can change an answer, and with nothing else."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.fingerprint import ModelDescription, fingerprint
from nightshard.core.hashing import ID_LENGTH, canonical_json, content_id

pytestmark = pytest.mark.unit

MODEL = ModelDescription("/models/m", "abc", "f00d", 4096, "vllm", "0.32.0", "0.1.0", 1)
ENGINE: dict[str, Any] = {"name": "vllm", "dtype": "bfloat16", "max_model_len": None, "options": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "abd"},
        {"chat_template_sha256": None},
        {"engine": "echo"},
        {"engine_version": "0.33.0"},
        {"adapter": {"path": "/adapters/tuned", "revision": "sha256:ad"}},
    ],
)
def test_other_weights_template_or_engine_give_another_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(dataclasses.replace(MODEL, **change), ENGINE, {}) != fingerprint(
        MODEL, ENGINE, {}
    )


@pytest.mark.parametrize(
    "change",
    [{"dtype": "float32"}, {"max_model_len": 2048}, {"options": {"seed": 1}}],
)
def test_other_engine_settings_give_another_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(MODEL, ENGINE | change, {}) != fingerprint(MODEL, ENGINE, {})


def test_other_template_arguments_give_another_fingerprint() -> None:
    thinking = fingerprint(MODEL, ENGINE, {"enable_thinking": True})
    assert thinking != fingerprint(MODEL, ENGINE, {})


@pytest.mark.parametrize(
    "change",
    [{"tensor_parallel": 4}, {"gpu_memory_utilization": 0.5}, {"enforce_eager": True}],
)
def test_what_only_changes_the_speed_keeps_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(MODEL, ENGINE | change, {}) == fingerprint(MODEL, ENGINE, {})


def test_fingerprints_of_earlier_releases_stay_what_they_were() -> None:
    model = ModelDescription("/m", "r", "t", 10, "vllm", "1", "w", 2)
    engine = {"name": "vllm", "dtype": "auto", "options": {}}
    assert fingerprint(model, engine, {}) == "c3484b6ad17621006b59d54011488626"


def test_the_same_weights_at_another_place_keep_the_fingerprint() -> None:
    moved = dataclasses.replace(MODEL, path="/scratch/m", worker_version="0.2.0")
    assert fingerprint(moved, ENGINE, {}) == fingerprint(MODEL, ENGINE, {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text("abc", max_size=3), json_values, max_size=6))
def test_the_order_of_keys_never_counts(value: dict[str, Any]) -> None:
    reversed_keys = dict(reversed(value.items()))
    assert content_id(value) == content_id(reversed_keys)
    assert len(content_id(value)) == ID_LENGTH


@given(json_values, json_values)
def test_two_values_share_an_id_only_if_they_are_the_same_json(one: Any, other: Any) -> None:
    assert (content_id(one) == content_id(other)) == (canonical_json(one) == canonical_json(other))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_without_a_json_form_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_id({"temperature": value})


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        content_id({"path": {1, 2}})
