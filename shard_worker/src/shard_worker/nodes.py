"""One shard over several nodes: the head runs it, a helper on each other node lends its GPUs.

They share a file in the shard's folder. Whenever the head starts the engine, it writes the engine's
arguments there, with a number that grows; the helpers then start their part of that engine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shard_worker.errors import ConfigError
from shard_worker.fsio import write_atomic

NODES = "SHARD_WORKER_NODES"
HEAD = "SHARD_WORKER_HEAD"
ENGINE_FILE = "SHARD_WORKER_ENGINE_FILE"

PORTS = 50
"""Each start of the engine takes the next of so many ports: the last one may still be in use."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a shard.

    Attributes:
        count: number of nodes, the head's included.
        host: name or address of the head's node.
        port: first port for the engine's processes.
        file: what head and helpers share.
    """

    count: int
    host: str
    port: int
    file: Path

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Nodes | None":
        """Read what the batch script exports; None where the shard has one node.

        Raises:
            ConfigError: it exports half of it.
        """
        count = int(environ.get(NODES) or 1)
        if count == 1:
            return None
        host, _, port = environ.get(HEAD, "").rpartition(":")
        if not host or not port.isdecimal() or not environ.get(ENGINE_FILE):
            raise ConfigError(
                f"{NODES} is {count}, but {HEAD} is not host:port or {ENGINE_FILE} is missing; use "
                "the batch template that came with this worker."
            )
        return cls(count, host, int(port), Path(environ[ENGINE_FILE]))

    def start(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Tell the helpers that the engine starts; return the head's arguments of vLLM.

        Raises:
            OSError: the shared file system is full or gone.
        """
        generation = EngineStart.read(self.file).generation + 1
        whole = {**arguments, **self._arguments(generation)}
        EngineStart(generation, whole).write(self.file)
        return whole

    def end(self) -> None:
        """Tell the helpers that the engine has ended.

        Raises:
            OSError: the shared file system is full or gone.
        """
        EngineStart(EngineStart.read(self.file).generation + 1).write(self.file)

    def _arguments(self, generation: int) -> dict[str, Any]:
        return {
            "nnodes": self.count,
            "node_rank": 0,
            "master_addr": self.host,
            "master_port": self.port + generation % PORTS,
            "distributed_executor_backend": "mp",
        }


@dataclass(frozen=True, slots=True)
class EngineStart:
    """One start of the engine.

    Attributes:
        generation: from 1; 0 where nothing has been started yet.
        arguments: of vLLM's ``EngineArgs``, the head's; a helper's differ in ``node_rank``. None
            where the engine has ended.
    """

    generation: int = 0
    arguments: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, path: Path) -> "EngineStart":
        """Read the file that head and helpers share."""
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return cls()
        return cls(value["generation"], value["arguments"])

    def write(self, path: Path) -> None:
        """Tell the helpers.

        Raises:
            OSError: the shared file system is full or gone.
        """
        value = {"generation": self.generation, "arguments": self.arguments}
        write_atomic(path, json.dumps(value).encode())
