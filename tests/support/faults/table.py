"""The page ``docs/reliability.md``: what breaks, what then happens, what it costs.

The tests of the fault matrix each measure one row. The page holds no time, id, path or port, so
that it changes only where behaviour does.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

MARK = "fault"
PAGE = Path("docs") / "reliability.md"
PLACES = ("tests/faults", "tests/e2e")
SIMULATED = "reliability-simulation.json"

GROUPS = (
    "Submitting",
    "The line to the cluster",
    "Slurm's own trouble",
    "Jobs that end badly",
    "Files and disks",
    "Doubles, clocks and recycled ids",
    "Nightshard itself stopped and started",
)

_INTRODUCTION = """\
# What happens when something breaks

This page is written by tests. Each row is a test that breaks one thing, on purpose and at a known
moment, while a run is in progress on a real Slurm with a real sshd. The test then lets the run go
on to its end and counts on the cluster, not in Nightshard's own books:

- **lost**: questions without an answer.
- **twice**: questions with more than one answer.
- **orphans**: jobs in the queue and worker processes on a node that nobody wants any more.
- **doubles**: submissions beyond one an attempt, and jobs beyond one that worked at an attempt.

All four are 0 in every row, or the test fails. The last column is what the user reads in the log of
the shard while it happens. Where the cause of an end does not allow another attempt, the run stops
with that sentence. The answers so far are kept, and after the task is cleared in Airflow the rest
is made. Job ids, nodes and times in the sentences stand for others.

`make reliability` runs the tests again and rewrites this page.
"""


@dataclass(frozen=True)
class Row:
    """One measured case."""

    kind: str
    happened: str
    lost: int
    twice: int
    orphaned: int
    doubled: int
    message: str

    def to_markdown(self) -> str:
        """Render a line of the table."""
        cells = [str(getattr(self, field.name)).replace("|", "\\|") for field in fields(self)]
        return f"| {' | '.join(cells)} |"


def declared(root: Path) -> dict[str, str]:
    """Find the cases that the tests declare by ``@pytest.mark.fault(group, kind)``, unrun.

    Args:
        root: of the repository.

    Returns:
        Group by kind, in the order of the page.
    """
    found: dict[str, str] = {}
    for place in PLACES:
        for path in sorted((root / place).glob("test_*.py")):
            for group, kind in _marks(path):
                if kind in found:
                    raise ValueError(f"two tests declare the case {kind!r}")
                if group not in GROUPS:
                    raise ValueError(f"{kind!r} is in no group of the page: {group!r}")
                found[kind] = group
    return dict(sorted(found.items(), key=lambda item: GROUPS.index(item[1])))


def _marks(path: Path) -> Iterable[tuple[str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    marks = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == MARK]
    for call in sorted(marks, key=lambda node: (node.lineno, node.col_offset)):
        group, kind = (ast.literal_eval(argument) for argument in call.args)
        yield group, kind


def render(kinds: Mapping[str, str], rows: Mapping[str, Row], simulated: str = "") -> str:
    """Write the page.

    Args:
        kinds: group by kind, in order.
        rows: by kind; a kind without a row is left out.
        simulated: paragraph on the simulation, empty where there is none.
    """
    blocks = [_INTRODUCTION]
    for group in GROUPS:
        lines = [
            rows[kind].to_markdown() for kind in kinds if kinds[kind] == group and kind in rows
        ]
        if lines:
            head = ("What breaks", "What happens", "lost", "twice", "orphans", "doubles")
            titles = f"| {' | '.join(head)} | What the user reads |"
            blocks.append(
                "\n".join([f"## {group}\n", titles, "|---|---|--:|--:|--:|--:|---|", *lines, ""])
            )
    if simulated:
        blocks.append(f"## In simulation\n\n{simulated}\n")
    return "\n".join(blocks)


def read(page: str) -> dict[str, Row]:
    """Read the rows of a page back."""
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == len(fields(Row)) and cells[2].isdigit():
            kind, happened, *counts, message = cells
            rows[kind] = Row(kind, happened, *map(int, counts), message)
    return rows


def simulated(folder: Path | None, page: str) -> str:
    """Say what the simulation counted; what the page says already where it has not been run."""
    path = folder / SIMULATED if folder else None
    if path is None or not path.exists():
        return page.partition("## In simulation\n\n")[2].strip()
    found = json.loads(path.read_text(encoding="utf-8"))
    often = ", ".join(f"{kind} ({count:,})" for kind, count in found["kinds"].items())
    return (
        f"The same code was also run {found['seeds']:,} times against a cluster in memory, each "
        "time with faults drawn at random from a seed. Nothing was lost, doubled or orphaned. "
        f"What broke, and how often: {often}."
    )


_EXAMPLES = (
    (re.compile(r"(run-)\d+"), r"\g<1>1"),
    (re.compile(r"\bjob \d+(?:_\d+)?"), "job 57_0"),
    (re.compile(r"\bnode\d+"), "node1"),
    (re.compile(r"(?<=:)\d{4,5}\b|(?<=port )\d{4,5}\b"), "22"),
    (re.compile(r"127\.0\.0\.1"), "login.example"),
    (re.compile(r"\broot@"), "user@"),
    (re.compile(r"/\S+/(runs/run-1|nightshard|small|ssh|known_hosts)"), r"/work/\1"),
    (re.compile(r"SHA256:[\w+/]+"), "SHA256:…"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.,+]*\d"), "2026-11-24T22:00:00"),
    (re.compile(r"[\d,]+ tok/s"), "12 tok/s"),
    (re.compile(r"\bin \d+ s\b"), "in 5 s"),
    (re.compile(r"\d+ answers are kept"), "2 answers are kept"),
)


def example(sentence: str) -> str:
    """Put examples in the place of what differs from run to run."""
    text = " ".join(sentence.split())
    for pattern, instead in _EXAMPLES:
        text = pattern.sub(instead, text)
    return text
