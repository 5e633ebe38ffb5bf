"""What an answer depends on beyond the request itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nightshard.core.hashing import content_id


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What the cluster says of a model and of the engine that will run it.

    It is the JSON that ``shard-worker describe`` prints.

    Attributes:
        path: absolute path on the cluster.
        revision: Hub commit, or a digest of the files for a plain folder.
        chat_template_sha256: digest of the chat template, None where the model has none.
        max_model_len: the longest sequence that the model's configuration allows, in tokens.
        engine: ``vllm`` or another engine of the worker.
        engine_version: version of that engine in the worker's environment.
        worker_version: version of the shard worker that answered.
        contract_version: version of the file contract that this worker speaks.
        adapter: ``path`` and ``revision`` of a LoRA adapter, None without one.
        weights_bytes: size of the weight files, None where it is not known.
    """

    path: str
    revision: str
    chat_template_sha256: str | None
    max_model_len: int | None
    engine: str
    engine_version: str
    worker_version: str
    contract_version: int
    adapter: Mapping[str, str] | None = None
    weights_bytes: int | None = None


ANSWER_SHAPING_ENGINE_KEYS = ("dtype", "max_model_len", "quantization", "options")
"""Engine settings that can change an answer; memory, eagerness and parallelism do not count."""


def fingerprint_content(
    model: ModelDescription,
    engine: Mapping[str, Any],
    chat_template_args: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything outside the request that can change an answer, as JSON.

    Prompts and sampling are in each ``request_id``, so an answer is known by the pair of
    fingerprint and request id. A merge refuses to mix two fingerprints.
    """
    return {
        "revision": model.revision,
        "chat_template": model.chat_template_sha256,
        "chat_template_args": dict(chat_template_args),
        "engine": model.engine,
        "engine_version": model.engine_version,
        "settings": {
            **{key: engine.get(key) for key in ANSWER_SHAPING_ENGINE_KEYS},
            "lora": model.adapter["revision"] if model.adapter else None,
        },
    }


def fingerprint(
    model: ModelDescription,
    engine: Mapping[str, Any],
    chat_template_args: Mapping[str, Any],
) -> str:
    """Return the id of :func:`fingerprint_content`."""
    return content_id(fingerprint_content(model, engine, chat_template_args))
