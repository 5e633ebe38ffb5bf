"""A judging job waits for room in the queue instead of failing."""

import asyncio
import contextlib
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from upath import UPath

from nightshard.clusters.errors import QueueFullError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.scoring import ScoreJob
from nightshard.clusters.submit import ArrayJob
from nightshard.orchestration.steps import scoring_there
from nightshard.results.store import RunStore, write_table

pytestmark = pytest.mark.unit


async def test_a_full_queue_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = RunLayout(PurePosixPath("/work"), "run-1-score")
    job = ScoreJob(layout, 1, ArrayJob("57", None, "ns-run-1-score-a1", 1))
    asked: list[dict[str, Any]] = []
    waits: list[float] = []

    async def begin(*_: Any, **options: Any) -> ScoreJob:
        asked.append(options)
        if len(asked) < 3:
            raise QueueFullError("Slurm refused the job: QOSMaxSubmitJobPerUserLimit.")
        return job

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    store = RunStore(UPath(tmp_path), "run-1")
    for path in (store.requests, store.problems, store.answers):
        write_table(path, pa.table({"a": [1]}))
    monkeypatch.setattr(scoring_there, "begin", begin)
    monkeypatch.setattr(scoring_there, "open_transport", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(scoring_there, "store_of", lambda _: store)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    run: Any = SimpleNamespace(run_key="run-1")
    profile: Any = SimpleNamespace(workdir="/work")

    assert await scoring_there._submit(run, profile, 2) is job
    assert waits == [5.0, 10.0]
    assert asked[-1]["owner"] == 2
    name, content = asked[-1]["archive"]
    assert name.startswith("nightshard-")
    assert b"nightshard/results/score_job.py" in content
