"""``shard-worker describe``: what the control plane must know before it plans a run."""

import os
from pathlib import Path
from typing import Any

from shard_worker import CONTRACT_VERSION, __version__, model_files
from shard_worker.versions import engine_version


def describe(model: str, engine: str) -> dict[str, Any]:
    """Describe a model and the engine that would run it; needs about a second on a login node.

    Args:
        model: folder of the weights, absolute or relative, ``~`` allowed.
        engine: ``vllm`` or ``echo``.

    Returns:
        The JSON object that ``describe`` prints; see :func:`shard_worker.model_files.revision` for
        what ``revision`` covers.

    Raises:
        ConfigError: the model does not exist, or the engine is not installed.
    """
    # Not resolve(): a path inside a Hub cache must keep the commit in its name.
    path = Path(os.path.abspath(Path(model).expanduser()))  # noqa: PTH100
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
    }
