"""What an engine's exception means."""

import errno
from pathlib import Path

from shard_worker.errors import EngineCrashError, OutOfMemoryError, WorkerError

_MEMORY_SIGNS = (
    "out of memory",
    "outofmemoryerror",
    "cannot allocate memory",
    "can't allocate memory",
    "no available memory for the cache blocks",
    "larger than the available kv cache memory",
    "less than desired gpu memory utilization",
)
_LONGEST_LOG = 1 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: BaseException) -> bool:
    """Tell whether a disk or a quota is used up."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def is_out_of_memory(text: str) -> bool:
    """Tell by what CUDA, PyTorch and vLLM say when memory does not suffice."""
    low = text.lower()
    return any(sign in low for sign in _MEMORY_SIGNS)


def explain(error: Exception, log_text: str) -> WorkerError:
    """Turn what an engine raised into an end with an exit code.

    vLLM runs in processes of its own; their root cause reaches this process only through the log
    that they share.

    Args:
        error: what was raised.
        log_text: what was written to the attempt's log since the engine began.
    """
    if isinstance(error, WorkerError):
        return error
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, MemoryError) or is_out_of_memory(reason) or is_out_of_memory(log_text):
        return OutOfMemoryError(
            f"The model or its cache does not fit into memory ({reason}); lower max_model_len or "
            "max_num_seqs, use more GPUs by tensor_parallel, or ask Slurm for more memory."
        )
    return EngineCrashError(f"The engine failed: {reason}; the lines above say where.")


class LogTail:
    """What an attempt's log gained since this object was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = path.stat().st_size if path.is_file() else 0

    def read(self) -> str:
        """Return the new text, its last MiB at most; empty where there is no log."""
        try:
            with self._path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(self._start, size - _LONGEST_LOG))
                return stream.read().decode(errors="replace")
        except OSError:
            return ""
