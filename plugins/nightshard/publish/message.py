"""What people are told of a run: one message with scores, differences, cost and links. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nightshard.core.run_params import model_label
from nightshard.results.records import RunRecord, gpu_time

Event = Literal["scored", "worse", "failed", "attention"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is told.

    Attributes:
        event: what happened: a run was scored, fell behind its baseline, failed, or one of its
            shards needs somebody.
        title: one line.
        text: some lines of plain text.
    """

    event: Event
    title: str
    text: str


def about_run(
    run: RunRecord | None,
    *,
    name: str,
    failures: Mapping[str, str],
    links: Mapping[str, str],
) -> Message:
    """Tell of a run that has ended.

    Args:
        run: as the database has it, None where it was not recorded.
        name: of the run, for a title without a record.
        failures: what failed, by task, with a sentence on each.
        links: addresses by what they lead to.
    """
    verdict = (run.gate or {}).get("verdict") if run else None
    # A gate fails its task by design; that is told as what it is.
    broken = {task: said for task, said in failures.items() if task != "gate"}
    event: Event = "failed" if broken else "worse" if verdict == "worse" else "scored"
    if run is None or (broken and not run.metrics):
        event = "failed"
    label = f"{model_label(run.model.name)} ({name})" if run else name
    words = {"scored": "scored", "worse": "is worse than its baseline", "failed": "failed"}
    return Message(event, f"{label} {words[event]}", "\n".join(_lines(run, broken, links)))


def about_shard(*, name: str, number: int, said: str, links: Mapping[str, str]) -> Message:
    """Tell of a shard that gets no other attempt by itself."""
    lines = [said, *(f"{what}: {address}" for what, address in links.items())]
    return Message("attention", f"Shard {number} of {name} needs attention", "\n".join(lines))


def _lines(
    run: RunRecord | None, failures: Mapping[str, str], links: Mapping[str, str]
) -> Iterator[str]:
    for task, said in failures.items():
        yield f"{task}: {said}"
    if run is not None:
        for one in run.metrics:
            if one.metric == "accuracy" and not one.subset:
                part = f", {one.coverage:.0%} of the answers" if one.partial else ""
                interval = (
                    f" ({one.ci_low:.3f} to {one.ci_high:.3f})"
                    if one.ci_low is not None and one.ci_high is not None
                    else ""
                )
                yield f"{one.benchmark}: {one.value:.3f}{interval}, n = {one.n}{part}"
        if run.gate:
            beside = f" than {run.gate['baseline']}" if run.gate["baseline"] else ""
            yield f"Gate: {run.gate['verdict']}{beside}"
            yield from (f"  {one}" for one in run.gate["reasons"])
        spent = gpu_time(run.attempts)
        wall = f"{run.wall_seconds / 60:.0f} min, " if run.wall_seconds is not None else ""
        yield f"Cost: {wall}{spent.total / 3600:.2f} GPU hours, {run.requests} answers"
    for what, address in links.items():
        yield f"{what}: {address}"
