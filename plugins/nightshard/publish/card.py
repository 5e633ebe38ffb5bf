"""The page that explains a published run, in the form of the Hub's dataset cards. Pure."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from nightshard.core.run_params import model_label
from nightshard.results.records import MetricRecord, RunRecord

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#!~&])")

OPTIONS = {
    "revision": "--revision",
    "adapter": "--adapter",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "max_tokens": "--max-tokens",
    "repeats": "--repeats",
    "seed": "--seed",
    "limit": "--limit",
    "system_prompt": "--system-prompt",
}
"""Parameters of a run that its command names where they are set."""


def folder_of(benchmark: str) -> str:
    """Name a benchmark's folder, and its configuration in the Hub's viewer."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", benchmark).strip("-.") or "benchmark"


def render(run: RunRecord, *, gated: Sequence[str] = ()) -> str:
    """Write the card of a run.

    Args:
        run: with its scores.
        gated: benchmarks whose questions were left out.
    """
    return "\n".join(_lines(run, gated)) + "\n"


def _lines(run: RunRecord, gated: Sequence[str]) -> Iterator[str]:
    benchmarks = list(dict.fromkeys(one.benchmark for one in run.metrics))
    front = {
        "pretty_name": f"{model_label(run.model.name)}: answers and scores",
        "tags": ["evaluation", "nightshard"],
        "configs": [
            {
                "config_name": folder_of(name),
                "data_files": [{"split": "answers", "path": f"data/{folder_of(name)}/*.parquet"}],
            }
            for name in benchmarks
        ],
    }
    yield "---"
    yield yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip()
    yield "---"
    yield ""
    yield f"# {_plain(model_label(run.model.name))}"
    yield ""
    yield (
        f"Answers and scores of {_plain(run.model.name)} at revision "
        f"{_plain(run.model.revision)}, by run {_plain(run.run_key)} of Nightshard."
    )
    yield ""
    yield from _scores(run.metrics)
    if gated:
        yield ""
        yield (
            f"The questions of {', '.join(map(_plain, gated))} may not be published; their "
            "problems have ids alone here."
        )
    yield ""
    yield "## How it was made"
    yield ""
    if run.params and run.params.get("tasks"):
        yield "```bash"
        yield command(run.params)
        yield "```"
        yield ""
    yield from _table(("what", "value"), list(_facts(run)))


def command(params: Mapping[str, Any]) -> str:
    """Return the command that asks for the same evaluation."""
    words = ["nightshard", "launch", "--model-name", str(params["model"])]
    words += ["--tasks", ",".join(params["tasks"]), "--cluster", str(params["cluster"])]
    for name, option in OPTIONS.items():
        if params.get(name) not in (None, "", 0):
            words += [option, str(params[name])]
    return shlex.join(word.replace("\n", " ") for word in words)


def _scores(metrics: Iterable[MetricRecord]) -> Iterator[str]:
    rows = [
        (
            one.benchmark,
            one.subset or "all",
            one.metric,
            f"{one.value:.3f}",
            "" if one.ci_low is None or one.ci_high is None else _interval(one.ci_low, one.ci_high),
            str(one.n),
            f"{one.coverage:.0%}{' (partial)' if one.partial else ''}",
        )
        for one in metrics
    ]
    heads = ("benchmark", "subset", "metric", "value", "95 % interval", "n", "coverage")
    yield from _table(heads, rows)


def _interval(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"


def _facts(run: RunRecord) -> Iterator[tuple[str, str]]:
    yield "fingerprint", run.fingerprint
    for name, value in (run.fingerprint_content or {}).items():
        yield name, value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    yield (
        "questions and judges",
        ", ".join(
            dict.fromkeys(
                f"{one.benchmark} {one.benchmark_version}, {one.judge_version}"
                for one in run.metrics
            )
        ),
    )
    yield "answers", f"{run.requests}, {run.reused} of them from earlier runs"
    if run.finished_at is not None:
        yield "finished", f"{run.finished_at:%Y-%m-%d %H:%M} UTC"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(map(_plain, row)) + " |"


def _plain(text: str) -> str:
    """Show a text as it is: on one line, with nothing that markdown would read."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))
