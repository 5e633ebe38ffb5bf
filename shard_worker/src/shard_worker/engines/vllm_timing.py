"""What vLLM's own processes know of their start. Imported there by name, and imports nothing."""

from typing import Any


class CompileTime:
    """Mixed into vLLM's worker class (``worker_extension_cls``)."""

    compilation_config: Any

    def compile_seconds(self) -> float:
        """Return the seconds of start-up that compilation took, 0 where nothing was compiled."""
        return float(self.compilation_config.compilation_time)
