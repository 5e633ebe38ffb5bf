"""Reading and checking the JSON files of the contract."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from shard_worker import CONTRACT_VERSION
from shard_worker.errors import ConfigError

STOP_BEFORE_S = 60.0


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the model is run.

    Attributes:
        name: engine, ``vllm``, ``transformers``, ``openai`` or ``echo``.
        dtype: of weights and activations; ``auto`` takes the checkpoint's own.
        tensor_parallel: number of GPUs over which each layer is split.
        max_model_len: prompt and answer together, in tokens; None lets the worker choose.
        gpu_memory_utilization: share of the GPU's memory, in (0, 1]; None is the engine's default.
        enforce_eager: no graph capture, for a faster start and slower tokens.
        options: engine-specific, see the schema.
        trust_remote_code: whether code in the model's folder may run.
        logprobs: whether the log-probability of each generated token is kept.
    """

    name: str
    dtype: str
    tensor_parallel: int
    max_model_len: int | None
    gpu_memory_utilization: float | None
    enforce_eager: bool
    options: Mapping[str, Any]
    trust_remote_code: bool = False
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: a name for people and its folder."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Spec:
    """What ``spec.json`` says, see ``schemas/spec.schema.json``.

    Attributes:
        run_key: name of the run.
        fingerprint: hash of everything beside the request that can change an answer.
        world_size: number of shards.
        model_name: for people.
        model_path: folder of the weights on this cluster.
        model_revision: what the control plane resolved.
        engine: how the model is run.
        adapter: LoRA adapter on top of the weights, None without one.
        chat_template_args: variables for the chat template.
        steal: a shard with room takes blocks that others have not begun.
        stop_before_s: how long before its job's end a shard stops by itself, in seconds.
        flush_rows: answers after which a part is written.
        flush_seconds: age of the oldest unwritten answer after which a part is written.
        progress_seconds: longest time between two refreshes of ``progress.json``.
    """

    run_key: str
    fingerprint: str
    world_size: int
    model_name: str
    model_path: Path
    model_revision: str
    engine: EngineSettings
    chat_template_args: Mapping[str, Any]
    flush_rows: int
    flush_seconds: float
    progress_seconds: float
    adapter: Adapter | None = None
    steal: bool = False
    stop_before_s: float = STOP_BEFORE_S

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Spec":
        """Build from the JSON form, which must have been checked."""
        return cls(
            run_key=value["run_key"],
            fingerprint=value["fingerprint"],
            world_size=value["world_size"],
            model_name=value["model"]["name"],
            model_path=Path(value["model"]["path"]),
            model_revision=value["model"]["revision"],
            engine=EngineSettings(**value["engine"]),
            chat_template_args=value["chat_template_args"],
            flush_rows=value["flush"]["rows"],
            flush_seconds=value["flush"]["seconds"],
            progress_seconds=value["progress_seconds"],
            adapter=_adapter(value["model"].get("adapter")),
            steal=value.get("balance") == "steal",
            stop_before_s=value.get("stop_before_s", STOP_BEFORE_S),
        )


def _adapter(value: Mapping[str, str] | None) -> Adapter | None:
    return Adapter(value["name"], Path(value["path"])) if value else None


@cache
def _validator(kind: str) -> Draft202012Validator:
    # importlib.resources and not a path: the worker may run from inside a zip.
    text = files("shard_worker").joinpath("schemas", f"{kind}.schema.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))


def violations(kind: str, value: Any) -> list[str]:
    """Say what is wrong with a document.

    Args:
        kind: ``spec``, ``manifest`` or ``progress``.
        value: the parsed JSON.

    Returns:
        One sentence a violation, in the order of the document's keys; empty if all is well.
    """
    errors = sorted(_validator(kind).iter_errors(value), key=lambda error: list(error.path))
    return [_sentence(error) for error in errors]


def _sentence(error: ValidationError) -> str:
    where = ".".join(str(step) for step in error.absolute_path) or "the document"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
        strange = ", ".join(sorted(repr(key) for key in error.instance if key not in known))
        return f"{where} has the unknown key {strange}; remove it."
    if error.validator == "required" and isinstance(error.instance, dict):
        return f"{where} lacks {error.message.split(' is a required')[0]}; add it."
    if where == "contract_version":
        return (
            f"contract_version is {error.instance!r}, but this worker speaks {CONTRACT_VERSION}; "
            "stage the worker that came with the control plane."
        )
    if error.validator == "enum":
        choices: Any = error.validator_value
        allowed = ", ".join(str(value) for value in choices)
        return f"{where} is {error.instance!r}; it must be one of {allowed}."
    return f"{where} cannot be used: {error.message}."


def load_spec(path: Path) -> Spec:
    """Read and check ``spec.json``.

    Raises:
        ConfigError: the file is missing, no JSON, or violates the schema; a sentence a violation.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; check --run-dir, or stage the run again."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}; stage the run again.") from None
    if wrong := violations("spec", value):
        raise ConfigError("\n".join(f"{path.name}: {sentence}" for sentence in wrong))
    return Spec.from_dict(value)
