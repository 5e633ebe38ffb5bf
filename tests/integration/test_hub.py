"""Publishing to the Hub: the real client against a stand-in at the wire, cut wherever it can be."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from support.evaluated import Results
from support.hub import FakeHub, fake_hub
from upath import UPath

from nightshard.core.errors import UserError
from nightshard.publish.account import HubAccount
from nightshard.publish.folder import write_folder
from nightshard.publish.hub import TRIES, upload
from nightshard.results.database import open_database
from nightshard.results.read import get_run
from nightshard.results.store import RunStore

pytestmark = pytest.mark.integration

NAME = "org/run-1"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client without Xet, whose protocol the stand-in does not speak, and without pauses."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as it is published."""
    root = tmp_path_factory.mktemp("run")
    results = Results(root)
    results.add("run-1", "org/a", lambda n: f"\\boxed{{{n}}}", names=("MATH500", "AMC23"))
    run = get_run(open_database(results.database_url), "run-1")
    write_folder(RunStore(UPath(results.store), "run-1"), run, root / "published")
    return root / "published"


def publish(hub: FakeHub, folder: Path, *, waits: list[float] | None = None) -> str:
    account = HubAccount("org", hub.token, hub.address)
    said = [] if waits is None else waits
    return upload(folder, account, "run-1", wait=said.append)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_whole(hub: FakeHub, folder: Path) -> None:
    """One dataset with exactly the folder's files, made by one commit beside the Hub's own."""
    assert set(hub.datasets) == {NAME}
    dataset = hub.datasets[NAME]
    files = {path: data for path, data in dataset.files.items() if path != ".gitattributes"}
    assert files == content(folder)
    assert len(dataset.commits) == 2


def test_a_run_becomes_a_private_dataset_in_one_commit(hub: FakeHub, folder: Path) -> None:
    assert publish(hub, folder) == f"{hub.address}/datasets/{NAME}"
    assert_whole(hub, folder)
    assert hub.datasets[NAME].private
    assert {"README.md", "metrics.json", "data/MATH500/answers.parquet"} <= set(content(folder))


def test_publishing_again_changes_nothing(hub: FakeHub, folder: Path) -> None:
    publish(hub, folder)
    publish(hub, folder)
    assert_whole(hub, folder)


def test_what_a_run_no_longer_has_goes_away(hub: FakeHub, folder: Path) -> None:
    publish(hub, folder)
    hub.datasets[NAME].files["data/Old/answers.parquet"] = b"old"
    publish(hub, folder)
    assert "data/Old/answers.parquet" not in hub.datasets[NAME].files


def requests_of_a_publication(folder: Path) -> int:
    with fake_hub() as hub:
        publish(hub, folder)
        return len(hub.asked)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_an_upload_that_was_cut_at_any_request_is_made_whole_by_repeating_it(
    folder: Path, cut: str
) -> None:
    count = requests_of_a_publication(folder)
    assert count >= 6
    for number in range(1, count + 1):
        with fake_hub() as hub:
            hub.cut_at, hub.cut, hub.dead = number, cut, True  # type: ignore[assignment]
            with pytest.raises((httpx2.TransportError, HfHubHTTPError, RuntimeError)):
                publish(hub, folder)
            hub.cut_at, hub.dead = None, False
            publish(hub, folder)
            assert_whole(hub, folder)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_one_broken_connection_anywhere_is_survived_without_a_retry_of_the_task(
    folder: Path, cut: str
) -> None:
    for number in range(1, requests_of_a_publication(folder) + 1):
        with fake_hub() as hub:
            hub.cut_at, hub.cut = number, cut  # type: ignore[assignment]
            publish(hub, folder)
            assert_whole(hub, folder)


@pytest.mark.parametrize("status", [412, 429, 500, 503])
def test_any_request_may_be_told_to_come_again(folder: Path, status: int) -> None:
    for number in range(1, requests_of_a_publication(folder) + 1):
        with fake_hub() as hub:
            hub.answers[number] = (status, {})
            publish(hub, folder)
            assert_whole(hub, folder)


def test_a_commit_of_somebody_else_in_between_is_taken_into_account(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = hub.serve

    def meddle(method: str, path: str, body: bytes):
        if path.endswith("/commit/main") and len(hub.datasets[NAME].commits) == 1:
            hub.datasets[NAME].files["note.txt"] = b"hello"
            hub.datasets[NAME].commits.append("somebody else")
        return served(method, path, body)

    monkeypatch.setattr(hub, "serve", meddle)
    publish(hub, folder)
    files = hub.datasets[NAME].files
    assert {path: files[path] for path in content(folder)} == content(folder)
    assert "note.txt" not in files


def test_the_hubs_wish_for_a_pause_is_heard(hub: FakeHub, folder: Path) -> None:
    last = requests_of_a_publication(folder)
    hub.answers[last] = (429, {"Retry-After": "17"})
    waits: list[float] = []
    publish(hub, folder, waits=waits)
    assert waits == [17.0]


def test_a_hub_that_stays_in_trouble_fails_the_task_after_some_tries(
    hub: FakeHub, folder: Path
) -> None:
    hub.answers = {number: (503, {}) for number in range(1, 1000)}
    waits: list[float] = []
    with pytest.raises(HfHubHTTPError):
        publish(hub, folder, waits=waits)
    assert waits == [2.0 * 2**number for number in range(TRIES - 1)]


def test_a_token_that_may_not_write_gets_one_sentence_without_the_token(
    hub: FakeHub, folder: Path
) -> None:
    account = HubAccount("org", "hf_another_example", hub.address)
    with pytest.raises(UserError, match="refuses the token for org/run-1") as refused:
        upload(folder, account, "run-1")
    assert "hf_another" not in str(refused.value)
    assert "hf_another" not in repr(account)
