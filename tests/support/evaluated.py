"""Scored runs with real files and rows, as the DAG leaves them, but for the cluster."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from support.merging import answers_to
from support.recorded import recorded_run
from upath import UPath

from nightshard.benchmarks import registry
from nightshard.benchmarks.base import Problem
from nightshard.benchmarks.requests import build_requests
from nightshard.core.checkpoints import checkpoint_of
from nightshard.results.arrow import problems_to_table, requests_to_table
from nightshard.results.database import open_database
from nightshard.results.records import AttemptRecord, ModelRecord, ShardRecord
from nightshard.results.rescore import rescore_run
from nightshard.results.store import RunStore, write_table
from nightshard.results.write import record_run

STARTED = datetime.datetime(2026, 11, 24, 1, tzinfo=datetime.UTC)
PROBLEMS = 40

HOSTILE = (
    "</div><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\n"
    "**bold** [link](javascript:alert(1)) \x1b[31mred\x1b[0m \u202egnp.exe \x00 end\n"
    "We have $\\frac{1}{2} < x^2$ and \\[\\href{javascript:alert(1)}{\\sqrt{2}}\\]\n"
    "```python\nprint('<b>hi</b>')\n```\n\\boxed{0}"
)
"""An answer that tries to be more than text, with two formulas and a piece of code."""


@dataclass(frozen=True, slots=True)
class Results:
    """A results database and a store.

    Attributes:
        folder: that holds both.
    """

    folder: Path

    @property
    def database_url(self) -> str:
        """URL of the database."""
        return f"sqlite:///{self.folder}/results.db"

    @property
    def store(self) -> str:
        """Folder of the store."""
        return str(self.folder / "store")

    def add(
        self,
        key: str,
        model: str,
        answer: Callable[[int], str],
        *,
        day: int = 0,
        shards: int = 1,
        names: Sequence[str] = ("MATH500",),
        asked: Mapping[str, Sequence[Problem]] | None = None,
    ) -> None:
        """Score and record a run.

        Args:
            key: of the run.
            model: a folder or Hub id.
            answer: the answer to each problem, by its number.
            day: since the first.
            shards: how many there were; all but the first needed a second attempt.
            names: benchmarks, all with the same problems.
            asked: problems by benchmark, in place of those of ``names``.
        """
        problems = asked or {
            name: [Problem(f"p{n:02d}", f"How much is ${n} + 0$?", str(n)) for n in range(PROBLEMS)]
            for name in names
        }
        requests = [
            one
            for name, its in problems.items()
            for one in build_requests(registry.get(name), its, repeats=1)
        ]
        store = RunStore(UPath(self.store), key)
        write_table(store.problems, problems_to_table({n: list(p) for n, p in problems.items()}))
        write_table(store.requests, requests_to_table(requests))
        texts = [answer(int(one.problem_id[1:])) for one in requests]
        write_table(store.answers, answers_to(requests, texts))
        checkpoint = checkpoint_of(model)
        started = STARTED + datetime.timedelta(days=day)
        run = recorded_run(key, model="unused", day=24, value=0.5)
        engine = open_database(self.database_url)
        record_run(
            engine,
            replace(
                run,
                model=ModelRecord(
                    name=Path(model).name if model.startswith("/") else model,
                    revision=f"revision-of-{Path(model).name}",
                    path=model,
                    family=checkpoint.family,
                    step=checkpoint.step,
                ),
                num_shards=shards,
                requests=len(requests),
                metrics=(),
                params={"model": model, "tasks": list(problems), "cluster": "local", "seed": 0},
                spec={"contract_version": 2, "run_key": key},
                dag_id="evaluate",
                dag_run_id=f"manual__{key}",
                started_at=started,
                finished_at=started + datetime.timedelta(minutes=10 / shards),
                wall_seconds=600 / shards,
                shards=tuple(_shard(rank, started, len(requests)) for rank in range(shards)),
                attempts=tuple(_attempts(shards, started)),
            ),
        )
        rescore_run(engine, self.store, key)


def _shard(rank: int, started: datetime.datetime, rows: int) -> ShardRecord:
    return ShardRecord(
        rank=rank,
        attempt=1 if rank == 0 else 2,
        state="COMPLETED",
        node="node1",
        rows=rows,
        import_s=5.0,
        load_s=20.0,
        generate_s=60.0,
        started_at=started + datetime.timedelta(seconds=120),
        finished_at=started + datetime.timedelta(seconds=210),
    )


def _attempts(shards: int, started: datetime.datetime) -> list[AttemptRecord]:
    made = []
    for rank in range(shards):
        ended = {"rank": rank, "node": "node1", "gpus": 1, "elapsed_s": 60}
        if rank:
            made.append(
                AttemptRecord(
                    **ended,
                    attempt=1,
                    state="node_failure",
                    job_id=f"57_{rank}",
                    message="its node failed on node1",
                    decision="again without node1",
                    ended_at=started + datetime.timedelta(seconds=90),
                )
            )
        made.append(
            AttemptRecord(
                **ended,
                attempt=1 if rank == 0 else 2,
                state="ended_well",
                job_id=f"58_{rank}",
                done=PROBLEMS,
                ended_at=started + datetime.timedelta(seconds=210),
            )
        )
    return made


def example_results(folder: Path) -> Results:
    """Make three checkpoints of one training and another model, and one answer that is hostile."""
    made = Results(folder)
    for day, (step, right) in enumerate(((100, 12), (200, 22), (300, 34))):
        made.add(
            f"run-{step}",
            f"/scratch/run7/checkpoint-{step}",
            lambda n, right=right: f"\\boxed{{{n if n < right else n + 1}}}",  # type: ignore[misc]
            day=day,
            shards=2,
            names=("MATH500", "AMC23"),
        )
    made.add(
        "run-other",
        "org/<b>other</b>",
        lambda n: HOSTILE if n == 0 else f"It is \\boxed{{{n}}}.",
        day=3,
    )
    made.add("run-other-4", "org/<b>other</b>", lambda n: f"It is \\boxed{{{n}}}.", day=4, shards=4)
    return made
