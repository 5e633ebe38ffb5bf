"""Ways in which a shard ends early, each with the exit code that tells the orchestrator why."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of ``shard-worker run``.

    The orchestrator decides by them: again for ``INTERRUPTED``, never again for ``BAD_CONFIG`` and
    ``OUT_OF_MEMORY``, which would only fail the same way.
    """

    DONE = 0
    BAD_CONFIG = 2
    OUT_OF_MEMORY = 3
    ENGINE_CRASH = 4
    INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h
    CLAIM_HELD = 76


class WorkerError(Exception):
    """An end that the worker understands. The message is a sentence for a person."""

    exit_code = Exit.ENGINE_CRASH


class ConfigError(WorkerError):
    """The spec, the inputs, the model folder or the environment cannot be used as they are."""

    exit_code = Exit.BAD_CONFIG


class OutOfMemoryError(WorkerError):
    """The model or its cache does not fit into memory."""

    exit_code = Exit.OUT_OF_MEMORY


class EngineCrashError(WorkerError):
    """The engine died or refused to start."""

    exit_code = Exit.ENGINE_CRASH


class InterruptedShardError(WorkerError):
    """A signal asked the shard to end; what was finished is kept."""

    exit_code = Exit.INTERRUPTED


class ClaimHeldError(WorkerError):
    """Another process owns this shard's attempt."""

    exit_code = Exit.CLAIM_HELD
