"""New revisions on the Hub, by the real client from a stand-in for the Hub's HTTP interface."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import HfApi
from support.loopback import serving

from nightshard.checkpoints.config import HubSource
from nightshard.checkpoints.found import Interval, SourceError
from nightshard.checkpoints.hub import Hub

pytestmark = pytest.mark.integration

NIGHT = Interval(datetime(2026, 1, 10, tzinfo=UTC), datetime(2026, 1, 11, tzinfo=UTC))
INSIDE = datetime(2026, 1, 10, 12, tzinfo=UTC)
BEFORE = NIGHT.start - timedelta(days=3)
WHOLE = ("config.json", "tokenizer.json", "model.safetensors")


@dataclass(frozen=True)
class Commit:
    sha: str
    at: datetime
    files: tuple[str, ...] = WHOLE


@dataclass
class Models:
    """What the stand-in holds.

    Attributes:
        repos: commits by branch by name, the latest commit first.
        asked: paths of all requests.
        status: answers everything with it where it is not 200.
    """

    repos: dict[str, dict[str, list[Commit]]]
    asked: list[str] = field(default_factory=list)
    status: int = 200

    def serve(self, path: str, query: dict[str, list[str]]) -> Any:
        parts = path.strip("/").split("/")
        if parts == ["api", "models"]:
            author = query["author"][0]
            found = [name for name in self.repos if name.startswith(f"{author}/")]
            newest = sorted(found, key=self._changed, reverse=True)
            return [{"id": name, "lastModified": stamp(self._changed(name))} for name in newest]
        if parts[1] == "collections":
            items = [{"_id": "1", "position": 0, "type": "model", "id": one} for one in self.repos]
            owner = {"name": "org", "type": "org", "avatarUrl": "", "fullname": "Org"}
            return {"slug": "org/x-1", "title": "x", "owner": owner, "items": items} | {
                "lastUpdated": stamp(INSIDE),
                "position": 0,
                "private": False,
                "theme": "orange",
                "upvotes": 0,
            }
        repo = self.repos.get("/".join(parts[2:4]))
        if repo is None:
            return None
        match parts[4]:
            case "refs":
                return {
                    "branches": [
                        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": its[0].sha}
                        for name, its in repo.items()
                    ],
                    "tags": [],
                    "converts": [],
                }
            case "commits":
                return [
                    {
                        "id": one.sha,
                        "authors": [],
                        "date": stamp(one.at),
                        "title": "x",
                        "message": "",
                    }
                    for one in repo[unquote(parts[5])]
                ]
            case _:
                commits = {one.sha: one for its in repo.values() for one in its}
                return [
                    {"type": "file", "path": name, "size": 1, "oid": "0"}
                    for name in commits[parts[5]].files
                ]

    def _changed(self, name: str) -> datetime:
        return max(its[0].at for its in self.repos[name].values())


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@contextmanager
def served(models: Models) -> Iterator[HfApi]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            models.asked.append(split.path)
            answer = models.serve(split.path, parse_qs(split.query))
            status = models.status if answer is not None else 404
            body = json.dumps(answer if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            if answer is None:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        yield HfApi(endpoint=address, token=False)


def source(**config: Any) -> HubSource:
    return HubSource(kind="hub", **config)


def test_new_commits_on_the_main_branch_of_matching_repositories() -> None:
    models = Models(
        {
            "org/run7-a": {"main": [Commit("a2", INSIDE), Commit("a1", BEFORE)]},
            "org/run7-b": {"main": [Commit("b1", BEFORE)]},
            "org/other": {"main": [Commit("c1", INSIDE)]},
        }
    )
    with served(models) as api:
        report = Hub(source(author="org", pattern="run7-*"), api).find(NIGHT)
    assert [(one.model, one.revision) for one in report.found] == [("org/run7-a", "a2")]
    # What has not changed since the night began is not asked for.
    assert not any("run7-b" in path for path in models.asked)


def test_of_several_commits_of_one_night_the_last_is_the_checkpoint() -> None:
    earlier = Commit("a1", INSIDE - timedelta(hours=1))
    later = Commit("a3", NIGHT.end + timedelta(hours=1))
    models = Models({"org/a": {"main": [later, Commit("a2", INSIDE), earlier]}})
    with served(models) as api:
        report = Hub(source(repos=("org/a",)), api).find(NIGHT)
    assert [one.revision for one in report.found] == ["a2"]


def test_branches_that_match_are_checkpoints_of_their_own() -> None:
    branches = {f"step-{n}": [Commit(f"s{n}", INSIDE + timedelta(minutes=n))] for n in (2, 1)}
    models = Models({"org/a": {"main": [Commit("m", INSIDE)], **branches}})
    with served(models) as api:
        report = Hub(source(author="org", revisions="step-*"), api).find(NIGHT)
    assert [one.version for one in report.found] == ["s1", "s2"]


def test_the_models_of_a_collection() -> None:
    models = Models({"org/a": {"main": [Commit("a", INSIDE)]}})
    with served(models) as api:
        report = Hub(source(collection="org/x-1"), api).find(NIGHT)
    assert [one.model for one in report.found] == ["org/a"]


def test_a_revision_that_is_still_uploaded_is_left_out_and_named() -> None:
    models = Models({"org/a": {"main": [Commit("a", INSIDE, ("config.json", "README.md"))]}})
    with served(models) as api:
        report = Hub(source(repos=("org/a",)), api).find(NIGHT)
    assert report.found == ()
    assert report.remarks == ("org/a at main is left out: it has no tokenizer.",)


def test_a_repository_that_is_not_there_is_no_quiet_night() -> None:
    with served(Models({})) as api, pytest.raises(SourceError, match="does not know"):
        Hub(source(repos=("org/gone",)), api).find(NIGHT)


def test_a_hub_that_fails_is_no_quiet_night() -> None:
    with (
        served(Models({"org/a": {"main": []}}, status=403)) as api,
        pytest.raises(SourceError, match="403"),
    ):
        Hub(source(repos=("org/a",)), api).find(NIGHT)
