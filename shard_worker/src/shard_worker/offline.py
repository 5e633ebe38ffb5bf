"""No network, and caches on the node."""

import getpass
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
}
"""Set in any case: a worker that could fall back on the network would hang on an offline node."""


def go_offline(environ: MutableMapping[str, str]) -> None:
    """Forbid the network to Hugging Face libraries and vLLM; they read this when imported."""
    environ.update(OFFLINE)
    # vLLM finds its own address by a socket towards a public name server unless it is told one; a
    # shard lives on one node.
    environ.setdefault("VLLM_HOST_IP", "127.0.0.1")


def node_local_caches(environ: MutableMapping[str, str], key: str) -> Path:
    """Give every shard its own compile caches on the node's own disk.

    Shards that share a cache on a shared file system wait for each other's locks, and a home
    folder may be full or read-only. A variable that the profile has set is left alone.

    Args:
        environ: the process's environment.
        key: unique for the shard, usable as a file name.

    Returns:
        The folder, under ``TMPDIR``, which may not exist.
    """
    root = Path(tempfile.gettempdir()) / f"shard-worker-{_user()}" / key
    for name, folder in {
        "VLLM_CACHE_ROOT": "vllm",
        "VLLM_CONFIG_ROOT": "vllm-config",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton",
    }.items():
        environ.setdefault(name, str(root / folder))
    return root


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in some containers
        return str(os.getuid())
