"""Rows in the schema of Evalchemy's distributed evaluation, and in ours.

Evalchemy: ``context`` (a chat), ``gen_kwargs``, and columns that are kept as they are; the answer
goes into ``model_outputs``, where its ``precomputed_hf`` model looks for it. Ours: the contract's
input.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from shard_worker.errors import ConfigError
from shard_worker.rows import INPUT_SCHEMA, Answer, Message, Request, Sampling

log = logging.getLogger(__name__)

ANSWER = "model_outputs"
DEFAULT_MAX_TOKENS = 32_768
_LENGTHS = ("max_new_tokens", "max_gen_toks", "max_tokens")
_KNOWN = {*_LENGTHS, "temperature", "top_p", "seed", "until", "stop", "do_sample"}


def requests_of(table: pa.Table) -> list[Request]:
    """Read a dataset's rows as requests, in its order.

    Raises:
        ConfigError: it is of neither schema, or a row cannot be used.
    """
    names = set(table.column_names)
    if {"request_id", "messages", "sampling"} <= names:
        return _ours(table)
    if {"context", "gen_kwargs"} <= names:
        return _theirs(table)
    raise ConfigError(
        "The dataset has neither the columns context and gen_kwargs (Evalchemy's) nor request_id, "
        f"messages and sampling (Nightshard's); it has {', '.join(table.column_names) or 'none'}."
    )


def with_answers(table: pa.Table, answers: Sequence[Answer]) -> pa.Table:
    """Return a dataset's rows with the answer of each in :data:`ANSWER`; null where it failed."""
    if ANSWER in table.column_names:
        table = table.drop_columns([ANSWER])
    return table.append_column(ANSWER, pa.array([one.text for one in answers], pa.string()))


def bounds(rows: int, size: int, rank: int) -> tuple[int, int]:
    """Cut rows into consecutive shards whose sizes differ by one at most; return one's ends."""
    least, more = divmod(rows, size)
    start = rank * least + min(rank, more)
    return start, start + least + (rank < more)


def _ours(table: pa.Table) -> list[Request]:
    if "cost" not in table.column_names:
        table = table.append_column("cost", pa.nulls(table.num_rows, pa.float32()))
    try:
        rows = table.select(INPUT_SCHEMA.names).cast(INPUT_SCHEMA).to_pylist()
    except (KeyError, ValueError) as error:
        reason = str(error).splitlines()[0].strip("'\"")
        raise ConfigError(f"The dataset is not an input of Nightshard: {reason}.") from None
    return [
        Request(
            **{
                **row,
                "messages": tuple(row["messages"]),
                "sampling": Sampling(**{**row["sampling"], "stop": tuple(row["sampling"]["stop"])}),
                "cost": row["cost"] or float(row["sampling"]["max_tokens"]),
            }
        )
        for row in rows
    ]


def _theirs(table: pa.Table) -> list[Request]:
    seen: Counter[str] = Counter()
    strange: set[str] = set()
    requests = []
    for number, row in enumerate(table.to_pylist()):
        messages = _messages(row["context"], number)
        settings = _settings(row["gen_kwargs"], number)
        strange |= settings.keys() - _KNOWN
        content = json.dumps([messages, settings], sort_keys=True, ensure_ascii=False, default=str)
        key = hashlib.sha256(content.encode()).hexdigest()[:32]
        # The same question twice is asked twice.
        request_id = hashlib.sha256(f"{key}\n{seen[key]}".encode()).hexdigest()[:32]
        seen[key] += 1
        sampling = _sampling(settings, request_id, number)
        requests.append(
            Request(
                request_id=request_id,
                benchmark=str(row.get("task_name") or "dataset"),
                problem_id=str(row.get("request_idx", number)),
                repeat_idx=int(row.get("repeat_idx") or 0),
                messages=messages,
                sampling=sampling,
                cost=float(sampling.max_tokens),
            )
        )
    if strange:
        log.warning(
            "gen_kwargs that are not understood and left out: %s", ", ".join(sorted(strange))
        )
    return requests


def _messages(value: Any, number: int) -> tuple[Message, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [{"role": "user", "content": value}]
        if not isinstance(value, list):
            value = [{"role": "user", "content": str(value)}]
    try:
        return tuple(Message(role=str(one["role"]), content=str(one["content"])) for one in value)
    except (TypeError, KeyError):
        raise ConfigError(
            f"Row {number}: context is neither a text nor a list of messages with role and content."
        ) from None


def _settings(value: Any, number: int) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ConfigError(
                f"Row {number}: gen_kwargs is {value!r}, which is not JSON."
            ) from None
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"Row {number}: gen_kwargs is no object of settings.")
    return {key: one for key, one in (value or {}).items() if one is not None}


def _sampling(settings: Mapping[str, Any], request_id: str, number: int) -> Sampling:
    length = next((settings[name] for name in _LENGTHS if name in settings), DEFAULT_MAX_TOKENS)
    stop = settings.get("until", settings.get("stop", ()))
    greedy = settings.get("do_sample") is False
    try:
        return Sampling(
            temperature=0.0 if greedy else float(settings.get("temperature", 1.0)),
            top_p=float(settings.get("top_p", 1.0)),
            max_tokens=int(length),
            seed=_seed(settings.get("seed"), request_id),
            stop=(stop,) if isinstance(stop, str) else tuple(map(str, stop)),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Row {number}: gen_kwargs cannot be used: {error}.") from None


def _seed(base: Any, request_id: str) -> int:
    """Give each row its own 31-bit seed: Evalchemy's rows of one repeat all have the same."""
    digest = hashlib.sha256(f"{base or 0}\n{request_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
