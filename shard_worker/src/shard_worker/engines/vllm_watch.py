"""Noticing that vLLM's engine process was killed."""

import threading
from typing import Any

from vllm.v1.engine.exceptions import EngineDeadError

EVERY_S = 0.5


class CoreWatch:
    """Wakes up whoever waits for the output of an engine process that is gone.

    vLLM's synchronous client marks itself dead when its process ends, and then waits for the next
    output for ever: a process that the kernel's out-of-memory killer ends would hold its GPU until
    the job's time limit. An exception in the client's queue is raised by its next ``get_output``.

    Args:
        core: ``LLMEngine.engine_core``; one without processes of its own needs no watch.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._ended = threading.Event()
        if hasattr(core, "outputs_queue") and hasattr(core, "resources"):
            threading.Thread(target=self._watch, name="vllm-watch", daemon=True).start()

    def end(self) -> None:
        """Stop watching, before the engine is ended on purpose."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            if self._core.resources.engine_dead:
                self._core.outputs_queue.put(EngineDeadError())
                return
