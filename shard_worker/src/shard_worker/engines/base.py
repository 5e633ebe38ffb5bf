"""The one small interface between the loop and whatever generates text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shard_worker.rows import Request


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine made of one request.

    Attributes:
        request_id: the request's own id.
        text: the answer, special tokens and the stop string left out; None with an error.
        prompt_tokens: number of tokens that went in.
        output_tokens: number of tokens generated.
        finish_reason: ``stop``, ``length`` or ``error``.
        error: a sentence, None if all is well.
        token_logprobs: natural logarithm of each generated token's probability, where asked for.
    """

    request_id: str
    text: str | None
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    error: str | None = None
    token_logprobs: tuple[float, ...] | None = None


class RequestRefusedError(Exception):
    """This one request cannot be run; the others can.

    Attributes:
        prompt_tokens: length of its prompt, 0 where it could not be rendered.
    """

    def __init__(self, message: str, prompt_tokens: int = 0) -> None:
        super().__init__(message)
        self.prompt_tokens = prompt_tokens


class Engine(Protocol):
    """Generates text. Not thread-safe; a module of an engine has ``make(spec) -> Engine``.

    Attributes:
        capacity: how many requests it wants to hold, so that it never idles. Few more than it can
            run at once, since other shards cannot take what it holds.
        gpu: name of the GPU once loaded, None without one.
        token_room: tokens, prompts and answers together, that it can hold at once; None where that
            is not known.
        compile_s: seconds of loading that went into compilation.
    """

    capacity: int
    gpu: str | None
    compile_s: float
    token_room: int | None

    def load(self, requests: Sequence[Request]) -> None:
        """Make ready for these requests; called once. Others may be added where they fit.

        Raises:
            ConfigError: the settings do not fit the model.
            Exception: anything else; :func:`shard_worker.failures.explain` sorts it.
        """

    def fits(self, request: Request) -> bool:
        """Tell whether a request that was not known at loading can be run as well as any other.

        One whose answer would be cut shorter than in an engine loaded for it does not fit.
        """

    def add(self, request: Request) -> None:
        """Take a request.

        Raises:
            RequestRefusedError: this request cannot be run.
        """

    def step(self) -> list[Completion]:
        """Work a little (well under a second) and return what has finished."""

    def close(self) -> None:
        """Free everything; also after a failed load."""
