"""``shard-worker describe``: what the control plane must know before it plans a run."""

import os
from pathlib import Path
from typing import Any

from shard_worker import CONTRACT_VERSION, __version__, model_files
from shard_worker.versions import engine_version

NOWHERE = "/"
"""Path of a model without a folder here; the contract asks for an absolute one."""


def describe(model: str, engine: str, adapter: str | None = None) -> dict[str, Any]:
    """Describe a model and the engine that would run it; needs about a second on a login node.

    Args:
        model: folder of the weights, absolute or relative, ``~`` allowed; with the engine
            ``openai`` the name of a model that is served elsewhere.
        engine: of the worker.
        adapter: folder of a LoRA adapter on top of the weights.

    Returns:
        The JSON object that ``describe`` prints; see :func:`shard_worker.model_files.revision` for
        what ``revision`` covers.

    Raises:
        ConfigError: the model or the adapter does not exist, or the engine is not installed.
    """
    if engine == "openai":
        return _served(model)
    path = _absolute(model)
    model_files.check_model_folder(path)
    return {
        "path": str(path),
        "revision": model_files.revision(path),
        "chat_template_sha256": model_files.chat_template_sha256(path),
        "max_model_len": model_files.max_model_len(path),
        "engine": engine,
        "engine_version": engine_version(engine),
        "worker_version": __version__,
        "contract_version": CONTRACT_VERSION,
        "adapter": None if adapter is None else _adapter(_absolute(adapter)),
        "weights_bytes": model_files.weights_bytes(path),
    }


def _served(name: str) -> dict[str, Any]:
    """Describe a model by its name: nobody here sees its files, so the name is its revision."""
    return {
        "path": NOWHERE,
        "revision": f"served as {name}",
        "chat_template_sha256": None,
        "max_model_len": None,
        "engine": "openai",
        "engine_version": engine_version("openai"),
        "worker_version": __version__,
        "contract_version": CONTRACT_VERSION,
        "adapter": None,
        "weights_bytes": None,
    }


def _absolute(folder: str) -> Path:
    # Not resolve(): a path inside a Hub cache must keep the commit in its name.
    return Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100


def _adapter(path: Path) -> dict[str, str]:
    model_files.adapter_rank(path)
    return {"path": str(path), "revision": model_files.revision(path)}
