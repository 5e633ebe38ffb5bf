"""Two runs side by side, problem by problem."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from upath import UPath

from nightshard.core.comparison import Difference, compare, holm
from nightshard.core.errors import UserError
from nightshard.results.store import RunStore, read_json, read_table

_COLUMNS = ["benchmark", "problem_id", "correct"]

Outcomes = Mapping[str, Mapping[str, list[bool]]]
"""Benchmark → problem → outcomes of its repeats."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two runs differ on one benchmark.

    Attributes:
        benchmark: registry name.
        difference: of the second run to the first; None where ``note`` says why not.
        adjusted: p-value after Holm's adjustment over all benchmarks that were compared.
        note: why they cannot be compared, or what to keep in mind.
    """

    benchmark: str
    difference: Difference | None
    adjusted: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``cannot tell``, at the 5 % level after the adjustment."""
        if self.difference is None or self.adjusted is None or self.adjusted >= LEVEL:
            return "cannot tell"
        return "better" if self.difference.value > 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        difference = asdict(self.difference) if self.difference else {}
        return {
            "benchmark": self.benchmark,
            **difference,
            "p_adjusted": self.adjusted,
            "verdict": self.verdict,
            "note": self.note,
        }


LEVEL = 0.05


def compare_runs(root: UPath | str, first: str, second: str) -> list[Comparison]:
    """Compare two runs on each benchmark that either has, in the first one's order.

    Only problems that both answered count, so a missing answer is no wrong one. A benchmark whose
    questions or judge have other versions in the two runs is not compared.

    Args:
        root: the artefact store.
        first: run key.
        second: run key.

    Raises:
        UserError: a run has no verdicts in the store, or they have no benchmark in common.
    """
    runs = [_load(RunStore(root, key)) for key in (first, second)]
    (before, versions_before), (after, versions_after) = runs
    names = list(dict.fromkeys([*before, *after]))
    if not set(before) & set(after):
        raise UserError(
            f"Runs {first} and {second} have no benchmark in common: {', '.join(before) or 'none'} "
            f"and {', '.join(after) or 'none'}."
        )
    found = []
    for name in names:
        if name not in before or name not in after:
            found.append(
                Comparison(name, None, note=f"only in {first if name in before else second}")
            )
        elif versions_before.get(name) != versions_after.get(name):
            found.append(
                Comparison(
                    name,
                    None,
                    note=f"questions and judge {' and '.join(versions_before[name])} in one run, "
                    f"{' and '.join(versions_after[name])} in the other; score both again",
                )
            )
        else:
            found.append(_compared(name, before[name], after[name]))
    adjusted = holm({one.benchmark: one.difference.p_value for one in found if one.difference})
    return [
        Comparison(one.benchmark, one.difference, adjusted.get(one.benchmark), one.note)
        for one in found
    ]


def _compared(
    name: str, before: Mapping[str, list[bool]], after: Mapping[str, list[bool]]
) -> Comparison:
    try:
        difference = compare(before, after)
    except ValueError as error:
        return Comparison(name, None, note=str(error))
    left_out = len(before.keys() | after.keys()) - difference.problems
    note = f"{left_out} problems are in one run only and do not count" if left_out else ""
    return Comparison(name, difference, note=note)


def _load(store: RunStore) -> tuple[Outcomes, Mapping[str, tuple[str, str]]]:
    outcomes: dict[str, dict[str, list[bool]]] = {}
    for row in read_table(store.verdicts, _COLUMNS).to_pylist():
        problems = outcomes.setdefault(row["benchmark"], {})
        problems.setdefault(row["problem_id"], []).append(row["correct"])
    metrics = read_json(store.scorecard)["metrics"]
    versions = {
        one["benchmark"]: (str(one["benchmark_version"]), str(one["judge_version"]))
        for one in metrics
    }
    return outcomes, versions
