"""vLLM's part on a node that is not the head's."""

from collections.abc import Mapping
from typing import Any

from vllm import EngineArgs
from vllm.v1.executor.multiproc_executor import MultiprocExecutor


def join(arguments: Mapping[str, Any]) -> None:
    """Run this node's processes of an engine until they end.

    Args:
        arguments: the head's arguments of ``EngineArgs`` with this node's ``node_rank``.
    """
    config = EngineArgs(**arguments).create_engine_config(headless=True)
    MultiprocExecutor(config, monitor_workers=False).start_worker_monitor(inline=True)
