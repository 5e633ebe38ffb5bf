"""``shard-worker assist``: lend the GPUs of this node to a shard whose head is on another one."""

import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from shard_worker.errors import ConfigError
from shard_worker.nodes import EngineStart, Nodes
from shard_worker.offline import node_local_caches

log = logging.getLogger(__name__)

LOOK_S = 0.5
PATIENCE_S = 30.0


def assist(environ: Mapping[str, str] = os.environ) -> None:
    """Start this node's part of the head's engine, again each time that the head starts it anew.

    It ends when the batch script ends it, after the head.

    Raises:
        ConfigError: it was not started by the batch script.
    """
    nodes = Nodes.from_env(environ)
    if nodes is None or not environ.get("SLURM_PROCID", "").isdecimal():
        raise ConfigError("assist is for the batch script of a shard of several nodes alone.")
    # srun counts the nodes of its own step, which leaves the head's out.
    node_rank = int(environ["SLURM_PROCID"]) + 1
    node_local_caches(os.environ, node_rank)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    part = _Part(nodes.file, node_rank)
    try:
        while not ended.wait(LOOK_S):
            part.follow(EngineStart.read(nodes.file))
    finally:
        part.stop()


class _Part:
    """This node's processes of the engine.

    The process is there before the head's engine starts, since importing vLLM takes long.
    """

    def __init__(self, file: Path, node_rank: int) -> None:
        self._file = file
        self._node_rank = node_rank
        self._joined = 0
        self._process = self._begin()

    def follow(self, start: EngineStart) -> None:
        """Say what the head has started, and begin anew where it has ended that."""
        if start.generation == self._joined:
            return
        if self._joined:
            self.stop()
            self._process = self._begin()
            self._joined = 0
        if start.arguments is not None:
            self._joined = start.generation
            log.info("node %d joins start %d of the engine", self._node_rank, start.generation)

    def stop(self) -> None:
        """End this node's processes."""
        process = self._process
        if process.pid is None:
            return
        process.terminate()
        process.join(PATIENCE_S)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()

    def _begin(self) -> BaseProcess:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_serve, args=(self._file, self._joined, self._node_rank))
        process.start()
        return process


def _serve(file: Path, after: int, node_rank: int) -> None:
    """Import vLLM, wait for a start of the engine that is later than another one, and join it."""
    os.setpgid(0, 0)  # vLLM's own processes belong to it and end with it
    vllm_nodes = importlib.import_module("shard_worker.engines.vllm_nodes")

    def end(*_: object) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    while (start := EngineStart.read(file)).generation <= after or start.arguments is None:
        time.sleep(LOOK_S)
    vllm_nodes.join({**start.arguments, "node_rank": node_rank})
