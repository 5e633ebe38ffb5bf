"""The process that judges: one JSON line in, one JSON line out.

``python -m nightshard.benchmarks.judges.process`` says ``{"ready": true}`` and then answers each
line ``{"id", "benchmark", "problem", "text", "last"}`` with ``{"id", "verdict"}``, or with ``{"id",
"failure"}`` where the judge itself is broken. A line without ``problem`` means that of the line
before. Replies may be held back for a moment, but not behind a line whose ``last`` is true.
"""

import contextlib
import dataclasses
import functools
import json
import os
import resource
import sys
import time
from typing import Any

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem, Verdict, Warm
from nightshard.benchmarks.judges import math
from nightshard.benchmarks.judges.limits import CPU_SECONDS, JudgingTimeout, cpu_limit

EXTRACTED_CHARACTERS = 300
"""What a verdict quotes at most: replies must stay small, see the pool's chunk."""

MEMORY_BYTES = 4 * 2**30
"""Address space of the process, so that one monstrous power cannot take the machine down."""


_VERDICT = tuple(field.name for field in dataclasses.fields(Verdict))

SAY_SECONDS = 0.02
"""How long a reply may be held back, beside the time of one judgement."""


# A group's own benchmarks are looked for in their folder each time that the registry is asked.
_benchmark = functools.cache(registry.get)


def judge_request(request: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """Judge one request of the protocol."""
    try:
        benchmark = _benchmark(request["benchmark"])
        if isinstance(benchmark, Warm):
            benchmark.warm(problem)
        with cpu_limit(CPU_SECONDS):
            verdict = benchmark.judge(problem, request["text"])
    except JudgingTimeout:
        verdict = Verdict(False, None, f"judging took more than {CPU_SECONDS:g} s")
    except MemoryError:
        verdict = Verdict(False, None, "judging needs too much memory")
    except Exception as error:  # noqa: BLE001 (a broken judge must not end the others' process)
        failure = f"{type(error).__name__}: {error}"
        return {"id": request["id"], "failure": failure[:EXTRACTED_CHARACTERS]}
    if verdict.extracted is not None:
        verdict = dataclasses.replace(verdict, extracted=verdict.extracted[:EXTRACTED_CHARACTERS])
    said = {name: getattr(verdict, name) for name in _VERDICT}  # ten times as fast as asdict
    return {"id": request["id"], "verdict": said}


def main() -> None:
    """Serve until the input ends."""
    # Whatever a library prints must not get among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # The system may allow less than we ask for.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # The first judgement shall not pay for the scorer's import with its own processor time.
    math.judge("1", "\\boxed{1}")
    print(json.dumps({"ready": True}), file=answers, flush=True)
    said = time.monotonic()
    problem = Problem("", "", "")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "problem" in request:
            problem = Problem(**request["problem"])
        print(json.dumps(judge_request(request, problem)), file=answers)
        now = time.monotonic()
        # A wakeup of the pool for each answer would cost more than judging many of them does.
        if request.get("last", True) or now - said > SAY_SECONDS:
            answers.flush()
            said = now


if __name__ == "__main__":
    main()
