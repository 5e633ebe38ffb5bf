"""What is asked of the model: one request is one problem, repeated once, with its own seed."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from nightshard.core.hashing import content_id


class Message(TypedDict):
    """One turn of a chat, in the form that chat templates take."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: probability mass kept, in (0, 1].
        max_tokens: upper bound on generated tokens.
        seed: seed of this one request (see :func:`request_seed`).
        stop: strings that end the answer.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int = 0
    stop: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which is also the parquet struct of the contract."""
        return {**dataclasses.asdict(self), "stop": list(self.stop)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Sampling":
        """Build from :meth:`to_dict`'s form."""
        return cls(**{**value, "stop": tuple(value.get("stop") or ())})


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a shard's input.

    Attributes:
        request_id: content hash, see :func:`request_id`; the key by which answers are matched.
        benchmark: registry name, for example ``MATH500``.
        problem_id: unique inside the benchmark.
        repeat_idx: 0-based repeat of the same problem.
        messages: the chat to complete, system prompt included.
        sampling: how the answer is drawn, with this request's own seed.
        expected_tokens: estimated output length, for balancing only; not part of the id.
    """

    request_id: str
    benchmark: str
    problem_id: str
    repeat_idx: int
    messages: tuple[Message, ...]
    sampling: Sampling
    expected_tokens: int = dataclasses.field(default=0, compare=False)


def request_seed(base_seed: int, benchmark: str, problem_id: str, repeat_idx: int) -> int:
    """Give every request its own 31-bit seed.

    Adjacent seeds would not do: vLLM gives sample *i* of *n* the seed ``seed + i``, so neighbours
    would repeat each other's samples. A hash spreads them.
    """
    text = f"{base_seed}\x1f{benchmark}\x1f{problem_id}\x1f{repeat_idx}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def make_request(
    *,
    benchmark: str,
    benchmark_version: str,
    problem_id: str,
    repeat_idx: int,
    messages: Sequence[Message],
    sampling: Sampling,
    expected_tokens: int = 0,
) -> Request:
    """Build a request and its id.

    The id is a hash of everything that is asked (benchmark, its version, problem, repeat, messages,
    sampling): a changed prompt can never meet an old answer, and a resume does not depend on the
    number of shards.
    """
    identity = {
        "benchmark": benchmark,
        "version": benchmark_version,
        "problem": problem_id,
        "repeat": repeat_idx,
        "messages": list(messages),
        "sampling": sampling.to_dict(),
    }
    return Request(
        request_id=content_id(identity),
        benchmark=benchmark,
        problem_id=problem_id,
        repeat_idx=repeat_idx,
        messages=tuple(messages),
        sampling=sampling,
        expected_tokens=expected_tokens,
    )
