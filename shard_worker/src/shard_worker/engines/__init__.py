"""Engines, each imported only when a spec names it."""

import importlib

from shard_worker.contract import Spec
from shard_worker.engines.base import Engine
from shard_worker.errors import ConfigError
from shard_worker.versions import engine_version


def make_engine(spec: Spec) -> Engine:
    """Import the engine that the spec names and make it, unloaded.

    Raises:
        ConfigError: the engine is not installed here or cannot be imported.
    """
    engine_version(spec.engine.name)
    try:
        module = importlib.import_module(f"shard_worker.engines.{spec.engine.name}")
    except ImportError as error:
        raise ConfigError(
            f"{spec.engine.name} is installed but cannot be imported ({error}); mend the worker's "
            "environment."
        ) from error
    engine: Engine = module.make(spec)
    return engine
