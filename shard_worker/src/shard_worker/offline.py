"""No network, and caches on the node."""

import os
import socket
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from shard_worker.nodes import NODES

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

_CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "VLLM_CONFIG_ROOT": "vllm-config",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}


def go_offline(environ: MutableMapping[str, str]) -> None:
    """Forbid the network to Hugging Face libraries and vLLM; they read this when imported."""
    environ.update(OFFLINE)
    # vLLM finds its own address by a socket towards a public name server unless it is told one.
    if environ.get(NODES, "1") == "1":
        environ.setdefault("VLLM_HOST_IP", "127.0.0.1")
    elif (address := own_address()) is not None:
        environ.setdefault("VLLM_HOST_IP", address)


def own_address() -> str | None:
    """Return the address by which the host's name is known, None where that is loopback."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return None
    return None if address.startswith("127.") else address


def node_local_caches(environ: MutableMapping[str, str], rank: int) -> None:
    """Give every shard its own compile caches on the node's own disk.

    Shards that share a cache on a shared file system wait for each other's locks, and a home
    folder may be full or read-only. The caches stay for the next run on this node, which starts
    several seconds sooner by them. A variable that the profile has set is left alone.

    Args:
        environ: the process's environment.
        rank: of the shard.
    """
    missing = {name: folder for name, folder in _CACHES.items() if name not in environ}
    if missing:
        root = _own_folder() / f"rank-{rank:05d}"
        environ.update({name: str(root / folder) for name, folder in missing.items()})


def _own_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"shard-worker-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Compile caches are code: a folder that somebody else made under our name is not used.
    status = folder.lstat()
    if status.st_uid == os.getuid() and not status.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="shard-worker-"))
