"""A group's ``nightly.yaml``: what it may say, and one sentence on what it may not."""

from pathlib import Path

import pytest

from nightshard.checkpoints.config import read_nightly
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

EXAMPLE = PROJECT_ROOT / "include" / "nightly.example.yaml"


def test_the_example_can_be_used() -> None:
    config = read_nightly(EXAMPLE, {}).required()
    assert config.caps_by_cluster() == {"local": 2}
    assert config.asked_of("run7") == {"cluster": "local", "preset": "six"}
    assert config.asked_of("run8")["tasks"] == ["MATH500", "AIME24"]


def test_without_the_file_the_sentence_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"copy include/nightly\.example\.yaml there"):
        read_nightly(tmp_path / "nightly.yaml", {}).required()


def test_a_folder_is_evaluated_on_its_own_cluster_and_each_cluster_has_a_cap(
    tmp_path: Path,
) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(
        "evaluate: {cluster: one}\ncaps: {one: 7}\nsources:\n"
        "  a: {kind: folder, glob: /x/*, cluster: two}\n"
        "  b: {kind: hub, author: org}\n"
        "  c: {kind: table, file: /c.csv, evaluate: {cluster: three}}\n"
    )
    config = read_nightly(file, {}).required()
    assert config.caps_by_cluster() == {"one": 7, "three": 4, "two": 4}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("shedule: x", "line 1: there is no key shedule; remove it or check its spelling."),
        (
            "evaluate: {cluster: c}\nsources:\n  a: {kind: hub}",
            "line 3: sources.a cannot be used; name one of author, collection and repos.",
        ),
        (
            "evaluate: {cluster: c}\nsources:\n  a: {kind: hub, author: x, globb: y}",
            "line 3: there is no key sources.a.globb",
        ),
        (
            "evaluate: {cluster: c}\nsources:\n  a: {kind: table, url: x}",
            "line 3: sources.a cannot be used; name a file, or a url with a table.",
        ),
        ("sources:\n  a: {kind: hub, author: x}", "line 2: no cluster is named for the source a"),
        ("sources:\n  a: {kind: ftp}", "line 2: sources.a cannot be used"),
        ("caps: {local: 0}", "line 1: caps.local cannot be used"),
    ],
)
def test_what_cannot_be_used_gets_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(text + "\n")
    with pytest.raises(UserError) as caught:
        read_nightly(file, {})
    assert str(caught.value).startswith(f"{file}, {sentence}")
    assert "\n" not in str(caught.value)
