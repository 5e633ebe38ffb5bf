"""New revisions on the Hugging Face Hub."""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from nightshard.checkpoints.config import HubSource
from nightshard.checkpoints.found import Found, Interval, Report, SourceError, as_utc

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d+)-of-(?P<total>\d+)(?P<ending>\.\w+)$")
_WEIGHTS = (".safetensors", ".bin", ".gguf")


@dataclass(frozen=True, slots=True)
class Hub:
    """A source on the Hub.

    Attributes:
        config: what to look for.
        api: the client, with its endpoint and token.
    """

    config: HubSource
    api: HfApi

    def find(self, interval: Interval) -> Report:
        """See :class:`~nightshard.checkpoints.found.Source`."""
        found: list[Found] = []
        remarks: list[str] = []
        try:
            for repo in self._repos(interval):
                for revision, commit, appeared in self._revisions(repo, interval):
                    missing = lacking(self._files(repo, commit))
                    if missing is None:
                        found.append(Found(repo, appeared, commit, revision=commit))
                    else:
                        remarks.append(f"{repo} at {revision} is left out: {missing}.")
        except RepositoryNotFoundError as error:
            raise SourceError(
                f"The Hub does not know what was asked for: {first_words(error)}"
            ) from None
        except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
            raise SourceError(
                f"The Hub at {self.api.endpoint} fails: {first_words(error)}"
            ) from None
        return Report(tuple(sorted(found, key=lambda one: one.appeared)), tuple(remarks))

    def _repos(self, interval: Interval) -> Iterator[str]:
        """Yield the repositories that changed since the interval began."""
        if self.config.repos:
            yield from self.config.repos
        elif self.config.collection:
            items = self.api.get_collection(self.config.collection).items
            yield from (item.item_id for item in items if item.item_type == "model")
        else:
            models: Any = self.api.list_models(author=self.config.author, sort="last_modified")
            for model in models:
                changed = model.last_modified
                if changed is not None and as_utc(changed) < interval.start:
                    return  # the latest come first
                if fnmatch.fnmatchcase(model.id.partition("/")[2], self.config.pattern):
                    yield model.id

    def _revisions(self, repo: str, interval: Interval) -> Iterator[tuple[str, str, Any]]:
        """Yield name, commit and time of each revision that is new in the interval."""
        for name in self._names(repo):
            commits = self.api.list_repo_commits(repo, revision=name)
            # Of several commits of one interval the last is the checkpoint.
            for commit in commits:
                appeared = as_utc(commit.created_at)
                if appeared in interval:
                    yield name, commit.commit_id, appeared
                    break

    def _names(self, repo: str) -> Sequence[str]:
        if self.config.revisions is None:
            return ("main",)
        refs = self.api.list_repo_refs(repo)
        names = (ref.name for ref in (*refs.branches, *refs.tags))
        return sorted({one for one in names if fnmatch.fnmatchcase(one, self.config.revisions)})

    def _files(self, repo: str, commit: str) -> set[str]:
        return set(self.api.list_repo_files(repo, revision=commit))


def lacking(files: set[str]) -> str | None:
    """Say what a revision lacks to be a whole checkpoint; None where it is whole.

    >>> lacking({"config.json", "tokenizer.json", "model.safetensors"})
    """
    top = {name for name in files if "/" not in name}
    if "config.json" not in top:
        return "it has no config.json"
    if not any(name.startswith("tokenizer") for name in top):
        return "it has no tokenizer"
    weights = [name for name in top if name.endswith(_WEIGHTS)]
    if not weights:
        return "it has no weights"
    for part in filter(None, map(_PART.match, weights)):
        for number in range(1, int(part["total"]) + 1):
            one = f"{number:0{len(part['number'])}d}"
            name = f"{part['stem']}-{one}-of-{part['total']}{part['ending']}"
            if name not in top:
                return f"{name} is not there yet"
    return None


def first_words(error: Exception) -> str:
    """Return the first line that the Hub's client says, as a sentence; what follows is advice."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") + "." if text else f"{type(error).__name__}."
