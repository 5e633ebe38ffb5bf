"""Is a run good enough beside another one? A policy says what is compared, and with what."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlalchemy as sa
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.results.compare import Comparison, compare_runs
from nightshard.results.read import get_run, list_runs
from nightshard.results.records import RunRecord
from nightshard.results.score import PARTIALLY_SCORED, SCORED

Verdict = Literal["better", "worse", "cannot tell"]

PREVIOUS, BEST = "previous", "best"


class Policy(BaseModel):
    """What a gate asks for.

    Attributes:
        baseline: ``previous``, the latest earlier run of the same model; ``best``, the one with the
            highest mean accuracy; or the key of a run.
        benchmarks: those that count; empty for all that both runs have.
        margin: by how much a score may fall, in accuracy from 0 to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    baseline: Annotated[str, Field(min_length=1)] = PREVIOUS
    benchmarks: tuple[str, ...] = ()
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """Read a YAML file.

        Raises:
            UserError: it is not there, or says what no policy can.
        """
        try:
            value = yaml.safe_load(path.read_text("utf-8")) or {}
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
        return _checked(value, str(path))


def named_policy(folder: Path, name: str) -> Policy:
    """Return the policy that a run asks for by one word.

    Args:
        folder: that holds policies, one YAML file each.
        name: ``previous``, ``best``, or the name of a file there without its ending.

    Raises:
        UserError: there is no such policy, or its file cannot be used.
    """
    if name in (PREVIOUS, BEST):
        return Policy(baseline=name)
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        there = f"; there are {', '.join(known)}" if known else ""
        raise UserError(
            f"There is no gate {name!r}: name previous, best or a policy of {folder}{there}."
        )
    return Policy.read(folder / f"{name}.yaml")


def gate_policy(policy: Policy, *, baseline: str | None, margin: float | None) -> Policy:
    """Return a policy with what was said beside its file.

    Raises:
        UserError: a value that no policy can have.
    """
    said = {"baseline": baseline, "margin": margin}
    changes = {name: value for name, value in said.items() if value is not None}
    return _checked({**policy.model_dump(), **changes}, "The gate")


def _checked(value: Any, where: str) -> Policy:
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "it"
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(
            f"{where}: {key} cannot be used ({message}); a policy has baseline, benchmarks and "
            "margin."
        ) from None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a gate says of a run.

    Attributes:
        verdict: ``worse`` where any benchmark has fallen for sure and by more than the margin, else
            ``better`` where any has risen for sure, else ``cannot tell``.
        baseline: key of the run that it was compared with, None where there is none.
        reasons: a sentence a benchmark.
        comparisons: what they rest on.
    """

    verdict: Verdict
    baseline: str | None
    reasons: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    def said(self) -> dict[str, Any]:
        """Return the JSON form without the comparisons, which the database has as rows."""
        return {
            "verdict": self.verdict,
            "baseline": self.baseline,
            "reasons": list(self.reasons),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**self.said(), "comparisons": [one.to_dict() for one in self.comparisons]}


def rule(comparisons: Iterable[Comparison], policy: Policy) -> Ruling:
    """Judge comparisons with a baseline; pure.

    A benchmark is worse where the paired test, adjusted over the benchmarks, says so at the 5 %
    level and the score has fallen by more than the margin.
    """
    counted = [
        one for one in comparisons if not policy.benchmarks or one.benchmark in policy.benchmarks
    ]
    verdicts = [_verdict(one, policy.margin) for one in counted]
    ruling: Verdict = "cannot tell"
    if "worse" in verdicts:
        ruling = "worse"
    elif "better" in verdicts:
        ruling = "better"
    reasons = [_reason(one, said) for one, said in zip(counted, verdicts, strict=True)]
    named = {one.benchmark for one in counted}
    reasons += [f"{name}: in neither run" for name in policy.benchmarks if name not in named]
    return Ruling(ruling, None, tuple(reasons), tuple(counted))


def gate(engine: sa.Engine, root: UPath | str, run_key: str, policy: Policy) -> Ruling:
    """Compare a run with the baseline that a policy chooses.

    Args:
        engine: the results database.
        root: the artefact store.
        run_key: the run.
        policy: what is asked.

    Raises:
        UserError: the run or a pinned baseline is not known, or the two have no benchmark in
            common.
    """
    run = get_run(engine, run_key)
    baseline = _baseline(engine, run, policy)
    if baseline is None:
        sentence = f"There is no earlier scored run of {run.model.name} to compare with."
        return Ruling("cannot tell", None, (sentence,))
    found = compare_runs(root, baseline, run_key)
    return replace(rule(found, policy), baseline=baseline)


def _baseline(engine: sa.Engine, run: RunRecord, policy: Policy) -> str | None:
    if policy.baseline not in (PREVIOUS, BEST):
        return get_run(engine, policy.baseline).run_key
    wanted = set(policy.benchmarks) or set(_accuracies(run))
    earlier = (one for one in _earlier(engine, run) if wanted & set(_accuracies(one)))
    if policy.baseline == PREVIOUS:
        chosen = next(earlier, None)
    else:
        chosen = max(earlier, key=lambda one: _mean(_accuracies(one), wanted), default=None)
    return None if chosen is None else chosen.run_key


def _earlier(engine: sa.Engine, run: RunRecord) -> Iterator[RunRecord]:
    """Yield the scored runs of the same model that began before this one, newest first."""
    for one in list_runs(engine, run.model.name):
        same = one.model == run.model.name and one.run_key != run.run_key
        if not same or one.status not in (SCORED, PARTIALLY_SCORED):
            continue
        record = get_run(engine, one.run_key)
        began = run.started_at
        if began is None or record.started_at is None or record.started_at < began:
            yield record


def _accuracies(run: RunRecord) -> dict[str, float]:
    return {
        one.benchmark: one.value
        for one in run.metrics
        if one.metric == "accuracy" and not one.subset
    }


def _mean(values: Mapping[str, float], wanted: Iterable[str]) -> float:
    known = [values[name] for name in wanted if name in values]
    return sum(known) / len(known)


def _verdict(one: Comparison, margin: float) -> Verdict:
    said = one.verdict
    if said == "worse" and one.difference is not None and -one.difference.value > margin:
        return "worse"
    return "better" if said == "better" else "cannot tell"


def _reason(one: Comparison, verdict: Verdict) -> str:
    found = one.difference
    if found is None:
        return f"{one.benchmark}: {verdict}, {one.note}"
    return (
        f"{one.benchmark}: {verdict}, {found.first:.3f} to {found.second:.3f} "
        f"({found.value:+.3f}, {found.ci_low:+.3f} to {found.ci_high:+.3f}, "
        f"p = {one.adjusted or 0:.4f}, {found.problems} problems)"
    )
