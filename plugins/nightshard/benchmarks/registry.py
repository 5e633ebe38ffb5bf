"""All benchmarks by name: Nightshard's, a group's own, and those of lm-evaluation-harness.

DAG files import this module to draw their form, so neither it nor the modules of the families may
import datasets, pandas, pyarrow or a scorer before a question is loaded or an answer judged.
"""

import difflib
import os

from nightshard.benchmarks import harness
from nightshard.benchmarks.base import Benchmark, BenchmarkInfo
from nightshard.benchmarks.choice import CHOICE_BENCHMARKS
from nightshard.benchmarks.code import CODE_BENCHMARKS, LiveCodeBench
from nightshard.benchmarks.functions import FUNCTION_BENCHMARKS
from nightshard.benchmarks.jee import JEE_BENCHMARKS
from nightshard.benchmarks.math import MATH_BENCHMARKS
from nightshard.benchmarks.own import OwnBenchmarks, read_folder
from nightshard.benchmarks.starter import Starter
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings

_BENCHMARKS: dict[str, Benchmark] = {
    benchmark.info.name: benchmark
    for benchmark in (
        Starter(),
        *MATH_BENCHMARKS,
        *CHOICE_BENCHMARKS,
        *JEE_BENCHMARKS,
        *FUNCTION_BENCHMARKS,
        *CODE_BENCHMARKS,
    )
}


def names() -> tuple[str, ...]:
    """Return the names of all benchmarks, in the order of the form."""
    return (*_BENCHMARKS, *(name for name in _own().found if name not in _BENCHMARKS))


def info(name: str) -> BenchmarkInfo:
    """Describe a benchmark without loading it.

    Raises:
        UserError: there is no benchmark of that name.
    """
    return get(name).info


def get(name: str) -> Benchmark:
    """Return a benchmark.

    Args:
        name: ``NAME``, ``lm-eval:TASK`` or, of LiveCodeBench, ``NAME@PART``.

    Raises:
        UserError: there is no benchmark of that name, or its file cannot be used.
    """
    if name in _BENCHMARKS:
        return _BENCHMARKS[name]
    if name.startswith(harness.PREFIX):
        return harness.get(name)
    whole, _, part = name.partition("@")
    if isinstance(release := _BENCHMARKS.get(whole), LiveCodeBench):
        return release.narrowed(part)
    own = _own()
    if name in own.found:
        return own.found[name]
    if name in own.broken:
        raise UserError(own.broken[name])
    by_key = {key.lower(): key for key in names()}
    close = [by_key[key] for key in difflib.get_close_matches(name.lower(), by_key, n=3)]
    advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names())}."
    raise UserError(f"There is no benchmark {name!r}; {advice}")


def _own() -> OwnBenchmarks:
    return read_folder(Settings.from_env(os.environ).benchmarks)
