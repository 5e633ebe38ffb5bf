"""The tables of a run: requests, answers, problems, verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from nightshard.benchmarks.base import Problem
from nightshard.core.plan import estimated_cost
from nightshard.core.requests import Message, Request, Sampling


def _schema(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(list(fields))


REQUEST_SCHEMA = _schema(
    ("request_id", pa.string()),
    ("benchmark", pa.string()),
    ("problem_id", pa.string()),
    ("repeat_idx", pa.int32()),
    ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    (
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
    ("cost", pa.float32()),
)
"""A shard's input, as the contract with the worker has it."""

PLANNED_SCHEMA = REQUEST_SCHEMA.append(pa.field("rank", pa.int32()))
"""All requests of a run, with the shard that owes the answer; null where it exists already."""

ANSWER_SCHEMA = _schema(
    ("request_id", pa.string()),
    ("benchmark", pa.string()),
    ("problem_id", pa.string()),
    ("repeat_idx", pa.int32()),
    ("text", pa.string()),
    ("output_tokens", pa.int32()),
    ("prompt_tokens", pa.int32()),
    ("finish_reason", pa.string()),
    ("seconds", pa.float64()),
    ("finished_at", pa.timestamp("us", tz="UTC")),
    ("error", pa.string()),
    ("rank", pa.int32()),
    ("attempt", pa.int32()),
)
"""A shard's output, as the contract with the worker has it."""

MERGED_SCHEMA = ANSWER_SCHEMA.append(pa.field("run_key", pa.string())).append(
    pa.field("fingerprint", pa.string())
)
"""Merged answers: each with the run whose shard gave it (an earlier one where it was reused)."""

PROBLEM_SCHEMA = _schema(
    ("benchmark", pa.string()),
    ("problem_id", pa.string()),
    ("question", pa.string()),
    ("gold", pa.string()),
    ("subset", pa.string()),
)
"""Problems with their golds; kept by the control plane only."""

VERDICT_SCHEMA = _schema(
    ("request_id", pa.string()),
    ("benchmark", pa.string()),
    ("problem_id", pa.string()),
    ("repeat_idx", pa.int32()),
    ("correct", pa.bool_()),
    ("extracted", pa.string()),
    ("reason", pa.string()),
    ("credit", pa.float64()),
)
"""What the judge said of each answer; rows without an answer are absent.

Verdicts of before 2026-11-25 have no column ``credit``.
"""


def requests_to_table(requests: Iterable[Request]) -> pa.Table:
    """Render requests in the contract's columns (:data:`REQUEST_SCHEMA`), in their order."""
    return pa.Table.from_pylist([_request_row(r) for r in requests], schema=REQUEST_SCHEMA)


def table_to_requests(table: pa.Table) -> list[Request]:
    """Read what :func:`requests_to_table` rendered; the expected length is not kept."""
    return [
        Request(
            request_id=row["request_id"],
            benchmark=row["benchmark"],
            problem_id=row["problem_id"],
            repeat_idx=row["repeat_idx"],
            messages=tuple(cast(list[Message], row["messages"])),
            sampling=Sampling.from_dict(row["sampling"]),
        )
        for row in table.select(REQUEST_SCHEMA.names).to_pylist()
    ]


def planned_table(requests: Sequence[Request], shards: Sequence[Sequence[Request]]) -> pa.Table:
    """Render all requests of a run with the shard of each (:data:`PLANNED_SCHEMA`).

    Args:
        requests: all of the run, in the order that merged answers shall have.
        shards: those that must be generated, by shard; the others exist already.
    """
    ranks = {r.request_id: rank for rank, shard in enumerate(shards) for r in shard}
    column = pa.array([ranks.get(r.request_id) for r in requests], pa.int32())
    return requests_to_table(requests).append_column(PLANNED_SCHEMA.field("rank"), column)


def problems_to_table(problems: Mapping[str, Sequence[Problem]]) -> pa.Table:
    """Render each benchmark's problems (:data:`PROBLEM_SCHEMA`), in their order."""
    rows = [
        {
            "benchmark": benchmark,
            "problem_id": problem.problem_id,
            "question": problem.question,
            "gold": problem.gold,
            "subset": problem.subset,
        }
        for benchmark, its in problems.items()
        for problem in its
    ]
    return pa.Table.from_pylist(rows, schema=PROBLEM_SCHEMA)


def table_to_problems(table: pa.Table) -> dict[str, list[Problem]]:
    """Read what :func:`problems_to_table` rendered."""
    problems: dict[str, list[Problem]] = {}
    for row in table.to_pylist():
        problems.setdefault(row.pop("benchmark"), []).append(Problem(**row))
    return problems


def _request_row(request: Request) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "benchmark": request.benchmark,
        "problem_id": request.problem_id,
        "repeat_idx": request.repeat_idx,
        "messages": list(request.messages),
        "sampling": request.sampling.to_dict(),
        "cost": estimated_cost(request),
    }
