"""Requests and answers, and their parquet form."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from shard_worker.errors import ConfigError


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: probability mass kept, in (0, 1].
        max_tokens: upper bound on generated tokens.
        seed: of this one request.
        stop: strings that end the answer and are not part of it.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One row of the input.

    ``cost`` is the expected length of the answer in tokens, by which work is balanced.
    """

    request_id: str
    benchmark: str
    problem_id: str
    repeat_idx: int
    messages: tuple[Message, ...]
    sampling: Sampling
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of the output.

    Attributes:
        request_id: the request that is answered.
        benchmark: copied from the request.
        problem_id: copied from the request.
        repeat_idx: copied from the request.
        text: the answer; None where ``error`` says why there is none.
        output_tokens: number of generated tokens.
        prompt_tokens: number of tokens of the rendered chat.
        finish_reason: ``stop``, ``length`` or ``error``.
        seconds: from handing the request to the engine to its end, waiting included.
        finished_at: UTC.
        error: a sentence, None for an answer.
        rank: the shard that made it.
        attempt: the attempt that made it.
        token_logprobs: natural logarithm of each generated token's probability, where asked for.
    """

    request_id: str
    benchmark: str
    problem_id: str
    repeat_idx: int
    text: str | None
    output_tokens: int
    prompt_tokens: int
    finish_reason: str
    seconds: float
    finished_at: datetime
    error: str | None
    rank: int
    attempt: int
    token_logprobs: tuple[float, ...] | None = None


_INPUT_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("request_id", pa.string()),
    pa.field("benchmark", pa.string()),
    pa.field("problem_id", pa.string()),
    pa.field("repeat_idx", pa.int32()),
    pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    pa.field(
        "sampling",
        pa.struct(
            [
                ("temperature", pa.float64()),
                ("top_p", pa.float64()),
                ("max_tokens", pa.int32()),
                ("seed", pa.int64()),
                ("stop", pa.list_(pa.string())),
            ]
        ),
    ),
    pa.field("cost", pa.float32()),
]
INPUT_SCHEMA = pa.schema(_INPUT_FIELDS)

_OUTPUT_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("request_id", pa.string()),
    pa.field("benchmark", pa.string()),
    pa.field("problem_id", pa.string()),
    pa.field("repeat_idx", pa.int32()),
    pa.field("text", pa.string()),
    pa.field("output_tokens", pa.int32()),
    pa.field("prompt_tokens", pa.int32()),
    pa.field("finish_reason", pa.string()),
    pa.field("seconds", pa.float64()),
    pa.field("finished_at", pa.timestamp("us", tz="UTC")),
    pa.field("error", pa.string()),
    pa.field("rank", pa.int32()),
    pa.field("attempt", pa.int32()),
]
OUTPUT_SCHEMA = pa.schema(_OUTPUT_FIELDS)
LOGPROBS = pa.field("token_logprobs", pa.list_(pa.float32()))
"""One more column, there only if an answer of the file has it."""


def read_requests(path: Path) -> list[Request]:
    """Read a shard's input.

    Raises:
        ConfigError: the file is missing, torn, lacks a column, or names a request twice.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; stage the run again.") from None
    try:
        table = pq.read_table(pa.BufferReader(data))
        table = table.select(INPUT_SCHEMA.names).cast(INPUT_SCHEMA)
    except (KeyError, ValueError, OSError) as error:  # pyarrow's errors are kinds of these
        reason = str(error).strip("'\"").splitlines()[0]
        raise ConfigError(
            f"{path} is not an input of this contract ({reason}); stage the run again."
        ) from None
    requests = [_request(row) for row in table.to_pylist()]
    seen: set[str] = set()
    for request in requests:
        if request.request_id in seen:
            raise ConfigError(f"{path} holds request {request.request_id} twice; plan it again.")
        seen.add(request.request_id)
    return requests


def _request(row: dict[str, object]) -> Request:
    sampling = row["sampling"]
    messages = row["messages"]
    if not isinstance(sampling, dict) or not isinstance(messages, list):
        raise ConfigError(
            f"request {row['request_id']} has no messages or no sampling; plan the run again."
        )
    return Request(
        request_id=str(row["request_id"]),
        benchmark=str(row["benchmark"]),
        problem_id=str(row["problem_id"]),
        repeat_idx=int(str(row["repeat_idx"])),
        messages=tuple(messages),
        sampling=Sampling(**{**sampling, "stop": tuple(sampling["stop"] or ())}),
        cost=float(str(row["cost"] or sampling["max_tokens"])),
    )


def requests_to_bytes(requests: Sequence[Request]) -> bytes:
    """Render requests as the input's parquet."""
    rows = [asdict(request) for request in requests]
    return _parquet(pa.Table.from_pylist(rows, schema=INPUT_SCHEMA))


def answers_to_bytes(answers: Sequence[Answer], metadata: dict[str, str]) -> bytes:
    """Render answers as parquet with ``metadata`` in the schema."""
    schema = OUTPUT_SCHEMA
    if any(answer.token_logprobs is not None for answer in answers):
        schema = schema.append(LOGPROBS)
    schema = schema.with_metadata(metadata)
    rows = [asdict(answer) for answer in answers]
    return _parquet(pa.Table.from_pylist(rows, schema=schema))


def _parquet(table: pa.Table) -> bytes:
    stream = BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def answers_from_bytes(data: bytes) -> tuple[list[Answer], dict[str, str]]:
    """Read what :func:`answers_to_bytes` wrote: the answers and the metadata.

    Raises:
        ValueError: not such a file (:class:`pyarrow.ArrowInvalid` is one).
        OSError: a torn parquet file, in pyarrow's words.
    """
    table = pq.read_table(pa.BufferReader(data))
    metadata = {
        key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()
    }
    if table.schema.names not in (OUTPUT_SCHEMA.names, [*OUTPUT_SCHEMA.names, LOGPROBS.name]):
        raise ValueError("the columns are not those of an answer file")
    return [_answer(row) for row in table.to_pylist()], metadata


def _answer(row: dict[str, Any]) -> Answer:
    logprobs = row.pop(LOGPROBS.name, None)
    return Answer(**row, token_logprobs=None if logprobs is None else tuple(logprobs))
