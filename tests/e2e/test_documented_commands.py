"""Every command of README and docs is run: here against a real Airflow, or by a test named here."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.documented import Command, commands
from support.stack import Stack

from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.stack import task_environment

pytestmark = pytest.mark.e2e

COMMAND_S = 300
TINY = ("--tasks", "Starter", "--limit", "3", "--publish", "no")

ELSEWHERE = {
    r"make quickstart$": ".ci/run",
    r"make (test|setup|lint|docs)\b": ".ci/run",
    r"pre-commit install": "CONTRIBUTING.md",
    r"make (reliability|judges)": "docs/",
    r"make perf ": "perf/",
    r"export |tar |cp |curl ": "shell",
    r"alembic ": "tests/unit/results_db/test_sqlite_database.py",
    r"nightshard doctor --cluster": "tests/integration/clusters/test_examination.py",
    r"nightshard cluster new": "tests/integration/clusters/test_new_cluster.py",
    r"nightshard local-cluster": "tests/integration/local/test_life_of_a_cluster.py",
    r"nightshard import-scores": "tests/integration/results_db/test_predecessor.py",
    r"nightshard import ": "tests/unit/results/test_precomputed.py",
    r"nightshard serve": "tests/integration/test_pages_browser.py",
    r"nightshard worker-bundle|sh shard-worker/": "tests/integration/local/test_worker_bundle.py",
    r"python -m shard_worker": "shard_worker/tests/unit/test_run_echo.py",
    r"sh include/compose/make-env": "tests/unit/local/test_compose_file.py",
    r"COMPOSE_PROFILES=": "tests/unit/local/test_compose_file.py",
    r"nightshard cancel": "tests/e2e/test_person_sees.py",
    r"airflow backfill create": "tests/nights/test_nights.py",
}
"""Commands that another test runs, or that are not for a test, by how they begin."""


def of_another_test(command: Command) -> bool:
    return any(re.match(pattern, command.line) for pattern in ELSEWHERE)


def shape(command: Command) -> str:
    """Return what a command is apart from the cluster, which each cluster's page names anew."""
    return re.sub(r"--cluster \S+", "", command.line)


HERE = list({shape(one): one for one in commands() if not of_another_test(one)}.values())


class Reader:
    """Somebody who types what the docs say, with names of their own in place of the examples."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.keys: list[str] = []
        self._swept: dict[frozenset[str], subprocess.CompletedProcess[str]] = {}

    def typed(self, line: str) -> list[str]:
        """Put the reader's own names in place of the examples."""
        words = shlex.split(line)
        words = words[1:] if words[0].endswith("nightshard") else words
        own = {
            **dict.fromkeys(
                ("org/name", "/models/mine", "/path/on/the/cluster/or/org/name", "/path/to/model"),
                str(self.stack.model),
            ),
            **dict.fromkeys(("RUN", "KEY", "FIRST"), self.keys[0] if self.keys else ""),
            "SECOND": self.keys[-1] if self.keys else "",
            "NAME": "tiny",
            "FOLDER": str(self.folder / "published"),
            "scores.parquet": str(self.folder / "scores.parquet"),
            "gate.yaml": str(self.folder / "gate.yaml"),
            "1,2,4,8": "1,2",
        }
        return [own.get(word, word) for word in words]

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        words = self.typed(line)
        if words[0] in {"launch", "sweep"}:
            words = self._quick(words)
        # Several pages name one sweep, which is minutes of evaluations.
        if words[0] == "sweep" and frozenset(words) in self._swept:
            return self._swept[frozenset(words)]
        if words[0] == "logs":
            self.evaluate("--force", "--num-shards", "3")
        done = subprocess.run(
            [Path(sys.executable).parent / "nightshard", *words],
            env={
                **self.stack.environment,
                **task_environment(self.stack.settings, self.stack.cluster),
                "NIGHTSHARD_HOME": str(self.folder / "home"),
                "NIGHTSHARD_NIGHTLY": str(self.stack.settings.state / "nightly.yaml"),
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if words[0] == "sweep":
            self._swept[frozenset(words)] = done
        return done

    def evaluate(self, *options: str) -> str:
        """Evaluate with three questions; return the run's key."""
        words = ("--model-name", str(self.stack.model), *TINY, "--cluster", "echo", *options)
        done = self.stack.cli("launch", *words, "--watchdog")
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"run (\S+) scored", done.stdout)
        assert found is not None
        return found[1]

    def _quick(self, words: list[str]) -> list[str]:
        """Ask a few bundled questions of an engine that answers at once."""
        kept, skip = [], False
        for word in words:
            if word in {"--tasks", "--preset", "--cluster", "--source"}:
                skip = True
            elif not skip:
                kept.append("2" if word == "8" else word)
            else:
                skip = False
        counts = ["--shards", "1,2"] if words[0] == "sweep" and "--shards" not in kept else []
        return [*kept, *counts, *TINY, "--cluster", "echo"]


@pytest.fixture(scope="module")
def reader(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("reader")
    home = folder / "home"
    home.mkdir()
    for name in ("include", "shard_worker", "plugins", "dags"):
        (home / name).symlink_to(PROJECT_ROOT / name)
    (folder / "gate.yaml").write_text("baseline: best\n")
    someone = Reader(stack, folder)
    someone.keys += [someone.evaluate("--seed", seed) for seed in ("1", "2")]
    return someone


@pytest.mark.parametrize("command", HERE, ids=lambda command: command.line[:70])
def test_a_command_of_the_docs_does_what_it_says(reader: Reader, command: Command) -> None:
    done = reader.run(command.line)
    assert "Traceback" not in done.stderr
    # `doctor` and `gate` end with 1 where they find something, which is what they are for.
    finds = command.line.split()[1] in {"doctor", "gate"}
    assert done.returncode in ({0, 1} if finds else {0}), done.stdout + done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_the_place_that_runs_a_command_exists(place: str) -> None:
    if place != "shell":
        assert (PROJECT_ROOT / place).exists()


def test_each_pattern_is_of_a_command_that_is_documented() -> None:
    lines = [one.line for one in commands()]
    for pattern in ELSEWHERE:
        assert any(re.match(pattern, line) for line in lines), pattern
