"""All benchmarks by name.

DAG files import this module to draw their form, so neither it nor the modules of the families may
import datasets, pandas, pyarrow or a scorer before a question is loaded or an answer judged.
"""

import difflib

from nightshard.benchmarks.base import Benchmark, BenchmarkInfo
from nightshard.benchmarks.math import MATH_BENCHMARKS
from nightshard.benchmarks.starter import Starter
from nightshard.core.errors import UserError

_BENCHMARKS: dict[str, Benchmark] = {
    benchmark.info.name: benchmark for benchmark in (Starter(), *MATH_BENCHMARKS)
}


def names() -> tuple[str, ...]:
    """Return the names of all benchmarks, in the order of the form."""
    return tuple(_BENCHMARKS)


def info(name: str) -> BenchmarkInfo:
    """Describe a benchmark without loading it.

    Raises:
        UserError: there is no benchmark of that name.
    """
    return get(name).info


def get(name: str) -> Benchmark:
    """Return a benchmark.

    Raises:
        UserError: there is no benchmark of that name.
    """
    if name in _BENCHMARKS:
        return _BENCHMARKS[name]
    by_key = {key.lower(): key for key in _BENCHMARKS}
    close = [by_key[key] for key in difflib.get_close_matches(name.lower(), by_key, n=3)]
    advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names())}."
    raise UserError(f"There is no benchmark {name!r}; {advice}")
