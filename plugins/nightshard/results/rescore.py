"""Judging stored answers again: no GPU, no cluster, nothing of the old score lost."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results.arrow import table_to_problems
from nightshard.results.read import get_run
from nightshard.results.score import Judge, ScoreCard, score
from nightshard.results.store import RunStore, read_json, read_table, write_json, write_table
from nightshard.results.write import record_run

_KEY = ("benchmark", "problem_id", "repeat_idx")


@dataclass(frozen=True, slots=True)
class ChangedSide:
    """An answer that is judged otherwise than before.

    Attributes:
        benchmark: registry name.
        problem_id: the problem.
        repeat_idx: which of its repeats.
        correct: whether it is right now.
        before: what the earlier verdict said, and ``reason`` what this one says.
        reason: a few words.
        extracted: what was taken for the final answer now.
    """

    benchmark: str
    problem_id: str
    repeat_idx: int
    correct: bool
    before: str
    reason: str
    extracted: str | None


@dataclass(frozen=True, slots=True)
class Rescored:
    """A run judged again.

    Attributes:
        card: the new scores.
        changed: answers that changed sides, in the order of the verdicts.
        new: whether there is anything new: a verdict, or the version of a judge.
    """

    card: ScoreCard
    changed: tuple[ChangedSide, ...]
    new: bool


def rescore(store: RunStore, *, judge: Judge | None = None) -> Rescored:
    """Judge a run's stored answers with this version's judges, and keep the earlier verdicts.

    Verdicts and scores that are replaced go to the run's folder ``history``, numbered from 1. Those
    of a benchmark that cannot be judged now stay.

    Args:
        store: the run's artefacts; nothing is written where nothing is new.
        judge: see :func:`nightshard.results.score.score`.

    Raises:
        UserError: the run's answers are not in the store, or no benchmark could be scored.
    """
    problems = table_to_problems(read_table(store.problems))
    card = score(read_table(store.requests), problems, store.answers, judge=judge)
    if not card.metrics:
        raise UserError(" ".join(card.failures.values()) or "There was nothing to score.")
    before = read_table(store.verdicts) if store.verdicts.exists() else None
    if before is not None and card.failures:
        card = _with_earlier(card, before, store)
    changed = () if before is None else changed_sides(before, card.verdicts)
    old_versions = _versions(store)
    versions = {one.benchmark: one.judge_version for one in card.metrics}
    new = before is None or bool(changed) or versions != old_versions
    if new:
        _keep_history(store)
        write_table(store.verdicts, card.verdicts)
        write_json(store.scorecard, card.to_dict())
    return Rescored(card, changed, new)


def rescore_run(engine: sa.Engine, root: UPath | str, run_key: str) -> Rescored:
    """Judge a run again, and write the scores beside those of other judge versions.

    Args:
        engine: the results database.
        root: the artefact store.
        run_key: the run.

    Raises:
        UserError: the database does not know the run, or see :func:`rescore`.
    """
    run = get_run(engine, run_key)
    done = rescore(RunStore(root, run_key))
    record_run(engine, replace(run, metrics=tuple(done.card.metrics), status=done.card.status))
    return done


def changed_sides(before: pa.Table, after: pa.Table) -> tuple[ChangedSide, ...]:
    """List the answers that both tables judge, and differently."""
    old = {tuple(row[name] for name in _KEY): row for row in before.to_pylist()}
    found = []
    for row in after.to_pylist():
        earlier = old.get(tuple(row[name] for name in _KEY))
        if earlier is not None and earlier["correct"] != row["correct"]:
            key = {name: row[name] for name in _KEY}
            found.append(
                ChangedSide(
                    **key,
                    correct=row["correct"],
                    before=earlier["reason"],
                    reason=row["reason"],
                    extracted=row["extracted"],
                )
            )
    return tuple(found)


def _with_earlier(card: ScoreCard, before: pa.Table, store: RunStore) -> ScoreCard:
    """Keep what was known of the benchmarks that cannot be judged now."""
    failed = pa.array(card.failures, pa.string())
    kept = before.filter(pc.is_in(before.column("benchmark"), value_set=failed))
    earlier = ScoreCard.from_dict(read_json(store.scorecard)) if store.scorecard.exists() else None
    metrics = [one for one in earlier.metrics if one.benchmark in card.failures] if earlier else []
    return replace(
        card,
        metrics=[*card.metrics, *metrics],
        verdicts=pa.concat_tables([card.verdicts, kept], promote_options="default"),
    )


def _versions(store: RunStore) -> Mapping[str, str]:
    if not store.scorecard.exists():
        return {}
    metrics = read_json(store.scorecard)["metrics"]
    return {one["benchmark"]: one["judge_version"] for one in metrics}


def _keep_history(store: RunStore) -> None:
    history = store.folder / "history"
    number = 1
    while (history / f"scorecard-{number:03d}.json").exists():
        number += 1
    if store.verdicts.exists():
        write_table(history / f"verdicts-{number:03d}.parquet", read_table(store.verdicts))
    if store.scorecard.exists():
        # Last, since it takes the number.
        write_json(history / f"scorecard-{number:03d}.json", read_json(store.scorecard))
