"""Answers in the schema of Evalchemy's repositories, taken over as a run of their own.

Such a repository holds ``context`` (a chat), ``task_name``, ``repeat_idx`` and ``model_outputs``,
but neither gold answers nor the names of problems: each row is matched to a problem of our own
benchmark by the question that its chat shows.
"""

import datetime
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from upath import UPath

from nightshard.benchmarks.base import Benchmark, Problem
from nightshard.benchmarks.choice import ChoiceBenchmark
from nightshard.core.errors import UserError
from nightshard.core.hashing import content_id
from nightshard.core.requests import Message, Request, make_request
from nightshard.core.run_params import model_slug
from nightshard.results.arrow import MERGED_SCHEMA, problems_to_table, requests_to_table
from nightshard.results.records import ModelRecord, RunRecord
from nightshard.results.rescore import Rescored, rescore_run
from nightshard.results.score import SCORED
from nightshard.results.store import RunStore, write_table
from nightshard.results.write import record_run

COLUMNS = ("context", "task_name", "model_outputs")
CLUSTER = "imported"

_DIGEST = 6
_OPTION = re.compile(r"(?:^|[\s(])([A-J])[).:]\s*", re.MULTILINE)


@dataclass
class Matched:
    """Rows as requests and answers.

    Attributes:
        requests: one a row that was matched.
        texts: its answer, None where the row has none.
        problems: benchmark → its problems, golds turned to the letters that were shown.
        strangers: task → rows that show no question of its benchmark.
    """

    requests: list[Request] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    strangers: Counter[str] = field(default_factory=Counter)


def match(
    rows: Iterable[Mapping[str, Any]],
    benchmarks: Mapping[str, Benchmark],
    problems: Mapping[str, Sequence[Problem]],
) -> Matched:
    """Find out what each row asked.

    Args:
        rows: of the repository; those of other tasks are not looked at.
        benchmarks: task → benchmark.
        problems: task → the benchmark's problems.
    """
    found = Matched()
    known = {task: _Questions(benchmarks[task], each) for task, each in problems.items()}
    repeats: Counter[tuple[str, str]] = Counter()
    for row in rows:
        task = str(row["task_name"])
        if task not in known:
            continue
        messages = _messages(row["context"])
        problem = known[task].asked(messages)
        if problem is None:
            found.strangers[task] += 1
            continue
        info = benchmarks[task].info
        repeat = repeats[task, problem.problem_id]
        repeats[task, problem.problem_id] += 1
        found.requests.append(
            make_request(
                benchmark=info.name,
                benchmark_version=info.version,
                problem_id=problem.problem_id,
                repeat_idx=repeat,
                messages=messages,
                sampling=info.sampling,
            )
        )
        # A row that was never answered holds an empty text there.
        found.texts.append(str(row["model_outputs"]) if row["model_outputs"] else None)
    found.problems = {benchmarks[task].info.name: each.all() for task, each in known.items()}
    return found


class _Questions:
    """The problems of one benchmark, by what their questions say."""

    def __init__(self, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
        self._lettered = isinstance(benchmark, ChoiceBenchmark)
        self._problems = {one.problem_id: one for one in problems}
        stems = [(_squeezed(self._stem(one)), one.problem_id) for one in problems]
        # The longest first: one question may be a part of another.
        self._stems = sorted(stems, key=lambda pair: -len(pair[0]))
        self._shown: dict[str, Problem] = {}

    def asked(self, messages: Sequence[Message]) -> Problem | None:
        """Return the problem that a chat shows, its gold as it is lettered there."""
        chat = "\n".join(message["content"] for message in messages)
        squeezed = _squeezed(chat)
        key = next((key for stem, key in self._stems if stem in squeezed), None)
        if key is None:
            return None
        problem = self._problems[key]
        if self._lettered:
            letter = _letter(chat, _options(problem), problem.gold)
            if letter is None:
                return None
            problem = replace(problem, gold=letter)
        # Options that another repeat shows in another order would need another gold.
        if self._shown.setdefault(key, problem) != problem:
            return None
        return problem

    def all(self) -> list[Problem]:
        """Return all problems, those that were shown as they were shown."""
        return [self._shown.get(key, problem) for key, problem in self._problems.items()]

    def _stem(self, problem: Problem) -> str:
        return problem.question.rpartition("\n\nA) ")[0] if self._lettered else problem.question


def _options(problem: Problem) -> dict[str, str]:
    lines = problem.question.rpartition("\n\nA) ")[2]
    texts = re.split(r"\n[B-J]\) ", lines)
    return dict(zip("ABCDEFGHIJ", texts, strict=False))


def _letter(chat: str, options: Mapping[str, str], gold: str) -> str | None:
    """Return the letter that a chat gives the right option, None where that is not clear."""
    wanted = {letter: _squeezed(option) for letter, option in options.items()}
    letters = set()
    for mark in _OPTION.finditer(chat):
        shown = _squeezed(chat[mark.end() :])
        # One option may begin like another.
        meant = [letter for letter, option in wanted.items() if shown.startswith(option)]
        if meant and max(meant, key=lambda letter: len(wanted[letter])) == gold:
            letters.add(mark[1])
    return letters.pop() if len(letters) == 1 else None


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _messages(context: Any) -> list[Message]:
    if isinstance(context, str):
        try:
            context = json.loads(context)
        except ValueError:
            context = [{"role": "user", "content": context}]
    return [{"role": str(one["role"]), "content": str(one["content"])} for one in context]


def read_rows(folder: Path) -> pa.Table:
    """Read a repository's rows from its parquet files, in the order of their names.

    Raises:
        UserError: there are none, or they are not of Evalchemy's schema.
    """
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no .parquet file; name the folder of the answers.")
    tables = []
    for file in files:
        try:
            names = pq.read_schema(file).names
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise UserError(
                    f"{file} has no column {missing[0]}, only {', '.join(names)}; answers in "
                    "Evalchemy's schema are wanted."
                )
            tables.append(pq.read_table(file, columns=list(COLUMNS), partitioning=None))
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{file} cannot be read ({reason}); get it again.") from None
    return pa.concat_tables(tables, promote_options="permissive")


def take_over(
    engine: sa.Engine, root: UPath | str, matched: Matched, *, model: str, source: str
) -> tuple[str, Rescored]:
    """Store matched answers as a run, score them, and write both down.

    The same answers of the same model always make the same run.

    Args:
        engine: the results database.
        root: the artefact store.
        matched: what :func:`match` found.
        model: its name.
        source: where the answers come from.

    Returns:
        The run's key and its scores.

    Raises:
        UserError: no row was matched.
    """
    if not matched.requests:
        raise UserError(f"No row of {source} shows a question of its benchmark; nothing is stored.")
    pairs = list(zip(matched.requests, matched.texts, strict=True))
    content = content_id([[one.request_id, text] for one, text in pairs])
    key = f"{CLUSTER}-{model_slug(model)}-{content[:_DIGEST]}"
    fingerprint = content_id({"imported": source, "model": model})
    store = RunStore(root, key)
    write_table(store.requests, requests_to_table(matched.requests))
    write_table(store.problems, problems_to_table(_of_run(matched)))
    write_table(store.answers, _answers(pairs, key, fingerprint))
    now = datetime.datetime.now(datetime.UTC)
    run = RunRecord(
        run_key=key,
        model=ModelRecord(name=model, revision="unknown", path=source),
        fingerprint=fingerprint,
        cluster=CLUSTER,
        status=SCORED,
        num_shards=0,
        requests=len(pairs),
        reused=len(pairs),
        params={"source": source, "model": model},
        answers_url=str(store.answers),
        started_at=now,
        finished_at=now,
    )
    record_run(engine, run)
    return key, rescore_run(engine, root, key)


def _of_run(matched: Matched) -> dict[str, list[Problem]]:
    asked: defaultdict[str, set[str]] = defaultdict(set)
    for request in matched.requests:
        asked[request.benchmark].add(request.problem_id)
    return {
        name: [one for one in problems if one.problem_id in asked[name]]
        for name, problems in matched.problems.items()
        if asked[name]
    }


def _answers(pairs: Iterable[tuple[Request, str | None]], key: str, fingerprint: str) -> pa.Table:
    rows = [
        {
            "request_id": request.request_id,
            "benchmark": request.benchmark,
            "problem_id": request.problem_id,
            "repeat_idx": request.repeat_idx,
            "text": text,
            "finish_reason": None,  # it is not kept there
            "run_key": key,
            "fingerprint": fingerprint,
        }
        for request, text in pairs
        if text is not None
    ]
    return pa.Table.from_pylist(rows, schema=MERGED_SCHEMA)
