"""A group's own benchmarks: files in a folder that a setting names.

``NAME.jsonl`` needs no code: rows with a question and an answer, or with options as well.
``NAME.py`` defines ``BENCHMARKS``, a list of anything that is a
:class:`~nightshard.benchmarks.base.Benchmark`. Like a DAG file it is code of whoever runs Airflow.
"""

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightshard.benchmarks import choice, math
from nightshard.benchmarks.base import METRICS, REASONING, Benchmark, BenchmarkInfo
from nightshard.benchmarks.choice import LETTERS, ChoiceBenchmark, Question, said
from nightshard.benchmarks.math import MathBenchmark
from nightshard.benchmarks.sources import Columns
from nightshard.core.errors import UserError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_EXPECTED_TOKENS = 2000
_VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class OwnBenchmarks:
    """What a folder holds.

    Attributes:
        found: name → benchmark.
        broken: name → sentence, of those that cannot be used; the others can.
    """

    found: Mapping[str, Benchmark] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)


def read_folder(folder: Path) -> OwnBenchmarks:
    """Return the benchmarks of a folder; read again only where a file of it has changed."""
    files = sorted([*folder.glob("*.jsonl"), *folder.glob("*.py")])
    stamps = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _read(stamps)


@functools.lru_cache(maxsize=4)
def _read(stamps: tuple[tuple[Path, int, int], ...]) -> OwnBenchmarks:
    found: dict[str, Benchmark] = {}
    broken: dict[str, str] = {}
    for file, *_ in stamps:
        try:
            for benchmark in _of_file(file):
                name = benchmark.info.name
                if not NAME.fullmatch(name):
                    raise UserError(
                        f"{file} names a benchmark {name!r}; use letters, digits, - and _, "
                        "beginning with a letter."
                    )
                if name in found:
                    raise UserError(f"{file} defines {name} once more; give it another name.")
                found[name] = benchmark
        except UserError as error:
            broken[file.stem] = str(error)
        except Exception as error:  # noqa: BLE001 (a user's code may raise anything)
            broken[file.stem] = f"{file} cannot be used: {type(error).__name__}: {error}"
    return OwnBenchmarks(found, broken)


def _of_file(file: Path) -> Iterator[Benchmark]:
    if file.suffix == ".jsonl":
        yield _of_rows(file)
        return
    spec = importlib.util.spec_from_file_location(f"nightshard_own_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} cannot be imported; is it a Python file?")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "BENCHMARKS"):
        raise UserError(f"{file} defines no BENCHMARKS; end it with BENCHMARKS = [...].")
    yield from module.BENCHMARKS


def _of_rows(file: Path) -> Benchmark:
    content = file.read_bytes()
    lines = [line for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{file} holds no problems; write one object a line.")
    first = json.loads(lines[0])
    options = isinstance(first, dict) and "options" in first
    info = BenchmarkInfo(
        name=file.stem,
        title=f"{file.stem}: {len(lines)} problems of your own",
        # Another content is another benchmark version, so that no old answer serves for it.
        version=hashlib.sha256(content).hexdigest()[:_VERSION_DIGITS],
        judge_version=choice.JUDGE if options else math.JUDGE,
        problems=len(lines),
        repeats=1,
        sampling=REASONING,
        expected_tokens=_EXPECTED_TOKENS,
        metrics=METRICS,
        source=str(file),
    )
    if options:
        return _OwnChoice(info, None, _question, file)
    columns = Columns(subset=("subset", "category", "topic"))
    return _OwnMath(info, None, columns, file)


@dataclass(frozen=True, slots=True)
class _OwnMath(MathBenchmark):
    file: Path

    def load(self, source: str | None = None) -> list[Any]:
        return MathBenchmark.load(self, source or str(self.file))


@dataclass(frozen=True, slots=True)
class _OwnChoice(ChoiceBenchmark):
    file: Path

    def load(self, source: str | None = None) -> list[Any]:
        return ChoiceBenchmark.load(self, source or str(self.file))


def _question(row: Mapping[str, Any]) -> Question:
    options = [str(option) for option in row["options"]]
    answer = said(row, "answer").upper()
    letters = LETTERS[: len(options)]
    if len(answer) != 1 or answer not in letters:
        raise ValueError(f"answer is {answer!r}, which is none of {', '.join(letters)}.")
    problem_id = str(row.get("id") or "")
    return Question(
        problem_id, said(row, "question"), options, letters.index(answer), row.get("subset")
    )
