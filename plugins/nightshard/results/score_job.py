"""Judging in a job on the cluster: ``python -m nightshard.results.score_job FOLDER``.

The folder holds ``inputs/{requests,problems,answers}.parquet``; the job writes
``outputs/verdicts.parquet`` and ``outputs/scorecard.json``.
"""

import os
import sys
from pathlib import Path

from upath import UPath

from nightshard.core.errors import NightshardError
from nightshard.results.arrow import table_to_problems
from nightshard.results.score import score
from nightshard.results.store import read_table, write_json, write_table

REQUESTS, PROBLEMS, ANSWERS = (
    f"inputs/{name}.parquet" for name in ("requests", "problems", "answers")
)
VERDICTS, SCORECARD = "outputs/verdicts.parquet", "outputs/scorecard.json"
OWN_BENCHMARKS = "inputs/benchmarks"


def judge_folder(folder: Path) -> None:
    """Judge what a folder holds.

    Raises:
        UserError: a file is missing or damaged.
    """
    os.environ["NIGHTSHARD_BENCHMARKS"] = str(folder / OWN_BENCHMARKS)
    root = UPath(folder)
    problems = table_to_problems(read_table(root / PROBLEMS))
    card = score(read_table(root / REQUESTS), problems, root / ANSWERS)
    write_table(root / VERDICTS, card.verdicts)
    write_json(root / SCORECARD, card.to_dict())
    print(f"{card.verdicts.num_rows} answers judged")
    for sentence in card.failures.values():
        print(sentence)


def main() -> None:
    """Judge; an expected error is one sentence and exit code 1."""
    try:
        judge_folder(Path(sys.argv[1]))
    except NightshardError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
