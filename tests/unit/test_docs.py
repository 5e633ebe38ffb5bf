"""The docs: a site without a warning, and commands that exist with the options they show."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.documented import Command, commands, pages

from nightshard.cli import cli
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

OURS = [one for one in commands() if re.match(r"(\.venv/bin/)?nightshard ", one.line)]
MAKE = [one for one in commands() if one.line.startswith("make ")]


@pytest.mark.parametrize("command", OURS, ids=str)
def test_a_command_of_the_docs_exists_with_its_options(command: Command) -> None:
    words = shlex.split(command.line)[1:]
    group: click.Command = cli
    context = click.Context(cli)
    while isinstance(group, click.Group):
        found = group.get_command(context, words[0])
        assert found is not None, words[0]
        group, words = found, words[1:]
    normalize = cli.context_settings["token_normalize_func"]
    parser = group.make_parser(click.Context(group, token_normalize_func=normalize))
    parser.parse_args(args=list(words))  # an unknown option raises


@pytest.mark.parametrize("command", MAKE, ids=str)
def test_a_target_of_the_docs_exists(command: Command) -> None:
    target = command.line.split()[1]
    assert re.search(rf"^{target}:", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE)
    name = re.search(r"NAME=(\w+)", command.line)
    assert name is None or (PROJECT_ROOT / "perf" / f"{name[1]}.py").exists()


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    config = (PROJECT_ROOT / "mkdocs.yml").read_text()
    shutil.copytree(PROJECT_ROOT / "docs", tmp_path / "docs")
    shutil.copy(PROJECT_ROOT / "CHANGELOG.md", tmp_path)
    (tmp_path / "mkdocs.yml").write_text(config)
    done = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / ".nightshard" / "site" / "nightly" / "index.html").exists()


def test_each_page_of_the_docs_is_in_the_navigation() -> None:
    nav = (PROJECT_ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    docs = PROJECT_ROOT / "docs"
    for page in pages():
        if page.is_relative_to(docs):
            assert page.relative_to(docs).as_posix() in nav


def test_no_page_names_a_file_that_is_not_there() -> None:
    for page in pages():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
