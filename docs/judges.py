"""Compare our judges with others and write docs/judges.md anew: ``make judges``.

Needs real questions and two references, which are not ours to publish; without one of them nothing
is written and a sentence says what is missing.
"""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from support.parity import sets  # noqa: E402 (the tests are not installed)
from support.parity.sets import EXPLAINED, UNFIT, Parity  # noqa: E402

NEEDED = {
    "NIGHTSHARD_SHARED_DATA": "the folder with math500, aime24, aime25 and amc23.jsonl",
    "NIGHTSHARD_HUMANEVAL": "HumanEval.jsonl of github.com/openai/human-eval",
    "NIGHTSHARD_MBPP": "the test split of the Hub's google-research-datasets/mbpp as a .jsonl file",
    "NIGHTSHARD_LCB": "lcb_runner/evaluation/testing_util.py of "
    "github.com/LiveCodeBench/LiveCodeBench",
    "NIGHTSHARD_JEE": "compute_metrics.py of github.com/dair-iitd/jeebench",
}

HEAD = """# Are the judges right?

This page is written by `make judges`. Each set holds answers that are made from the benchmark's own
golds in many forms (right and wrong, boxed or not, several boxes, thinking tags, other languages,
cut off, empty), so that their truth is known, or programs whose truth is known. Each answer is
judged by us and by a reference that is not ours: lm-evaluation-harness's own filter and metric, or
the benchmark's official harness. The forms are in `tests/support/parity/`.

| benchmark | reference | answers | agree | ours against the known truth |
|---|---|--:|--:|--:|
"""


def main() -> None:
    """Measure and write."""
    missing = [f"{name} ({what})" for name, what in NEEDED.items() if not os.environ.get(name)]
    if missing:
        raise SystemExit(f"Nothing is written; set {'; '.join(missing)}.")
    logging.disable(logging.CRITICAL)
    (DOCS / "judges.md").write_text("".join(page(list(measured()))))


def measured() -> Iterator[Parity]:
    """Yield what came of each set."""
    folder, human_eval, mbpp, official, jee = (Path(os.environ[name]) for name in NEEDED)
    yield from sets.mathematics(folder)
    yield from sets.others()
    yield sets.jee_bench(jee)
    yield sets.live_code_bench(official)
    yield sets.functions("HumanEval", human_eval)
    yield sets.functions("MBPP", mbpp)


def page(results: list[Parity]) -> Iterator[str]:
    """Yield the page's pieces.

    Raises:
        SystemExit: a disagreement that nobody has explained.
    """
    yield HEAD
    for one in results:
        right = 1 - len(one.mistakes) / one.answers
        yield (
            f"| {one.benchmark} | {one.reference} | {one.answers:,} | {one.agreement:.2%} | "
            f"{right:.2%} |\n"
        )
    yield "\n## Each disagreement\n\n"
    for one in results:
        for what, text, ours in one.disagreements:
            why = next((said for part, said in EXPLAINED.items() if part in text), None)
            if why is None:
                raise SystemExit(f"{one.benchmark}, {what}: nobody has explained {text!r}.")
            said = "right" if ours else "wrong"
            yield f"- {one.benchmark}, {one.reference}: ours says {said}, it does not; {why}.\n"
    yield "\n## Each answer that we judge otherwise than it was made\n\n"
    for one in results:
        for what, _, _ in one.mistakes:
            yield f"- {one.benchmark} {what}: {UNFIT[what]}.\n"
    yield "\n## Forms that a reference does not know, so that only ours was asked\n\n"
    for one in results:
        if one.left_out:
            forms = ", ".join(one.left_out)
            yield f"- {one.benchmark}, {one.reference}: {forms}.\n"
    yield (
        "\nMATH500's 500 reference solutions are all judged right by their own text "
        "(`tests/integration/benchmarks/test_real_questions.py`). Tasks of lm-evaluation-harness, "
        "IFEval among them, are judged by that package itself.\n"
    )


if __name__ == "__main__":
    main()
