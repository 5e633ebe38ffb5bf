"""New folders on a cluster's file system."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nightshard.checkpoints.config import FolderSource
from nightshard.checkpoints.found import Found, Interval, Report, SourceError

PROGRAM = r"""
import glob, hashlib, json, os, sys

pattern, marker = sys.argv[1:]


def lacks(folder, names):
    def there(name):
        return name in names and os.path.getsize(os.path.join(folder, name)) > 0

    if not there("config.json"):
        return "it has no config.json"
    if not any(there(name) for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return "it has no tokenizer"
    ends = (".safetensors.index.json", ".bin.index.json")
    indexes = [name for name in names if name.endswith(ends)]
    for index in indexes:
        try:
            with open(os.path.join(folder, index)) as file:
                needed = sorted(set(json.load(file)["weight_map"].values()))
        except (ValueError, KeyError):
            return index + " is not whole yet"
        missing = [name for name in needed if not there(name)]
        if missing:
            return missing[0] + " is not there yet"
    if not indexes and not any(name.endswith((".safetensors", ".bin", ".gguf")) for name in names):
        return "it has no weights"
    return None


for folder in sorted(glob.glob(pattern)):
    if not os.path.isdir(folder):
        continue
    try:
        files = [one for one in os.scandir(folder) if one.is_file()]
        entries = sorted(files, key=lambda one: one.name)
        facts = [(one.name, one.stat().st_size, one.stat().st_mtime) for one in entries]
        names = {name for name, _, _ in facts}
        if marker:
            missing = None if marker in names else "it has no " + marker
            newest = max([at for name, _, at in facts if name == marker], default=0)
        else:
            missing = lacks(folder, names)
            newest = max([at for _, _, at in facts], default=0)
    except OSError as error:
        missing, newest, facts = error.strerror or str(error), 0, []
    version = hashlib.sha256(json.dumps([folder, facts]).encode()).hexdigest()
    print(json.dumps({"folder": folder, "newest": newest, "version": version, "lacks": missing}))
print(json.dumps("end"))
"""
"""Runs on the login node. Its arguments are the pattern and the marker's name or nothing; it prints
a line of JSON for each folder, and a last one so that a cut answer is known as one."""

MOST_REMARKS = 5

Ask = Callable[[str, str], Awaitable[str]]
"""Runs :data:`PROGRAM` on the cluster with its two arguments and returns what it prints."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A source on a cluster.

    Attributes:
        config: what to look for.
        ask: runs the program there.
        run: runs an awaitable to its end.
    """

    config: FolderSource
    ask: Ask
    run: Callable[[Any], str]

    def find(self, interval: Interval) -> Report:
        """See :class:`~nightshard.checkpoints.found.Source`."""
        printed = self.run(self.ask(self.config.glob, self.config.marker or ""))
        return read_folders(printed, self.config, interval)


def read_folders(printed: str, config: FolderSource, interval: Interval) -> Report:
    """Choose the checkpoints of an interval among what the program printed.

    A checkpoint appears when it has been stable for as long as the source asks, so that one which
    is still written at the end of an interval belongs to the next.

    Raises:
        SourceError: the answer is cut short.
    """
    lines = printed.splitlines()
    if not lines or lines[-1] != '"end"':
        raise SourceError(f"The cluster's answer about {config.glob} is cut short; try again.")
    stable = timedelta(0) if config.marker else timedelta(minutes=config.stable_minutes)
    found: list[Found] = []
    unfinished: list[str] = []
    for line in lines[:-1]:
        one = json.loads(line)
        if one["lacks"] is not None:
            unfinished.append(f"{one['folder']} is left out: {one['lacks']}.")
            continue
        appeared = datetime.fromtimestamp(one["newest"], UTC) + stable
        if appeared in interval:
            found.append(Found(one["folder"], appeared, one["version"]))
    more = len(unfinished) - MOST_REMARKS
    remarks = [
        *unfinished[:MOST_REMARKS],
        *([f"And {more} more are left out."] if more > 0 else []),
    ]
    return Report(tuple(sorted(found, key=lambda one: one.appeared)), tuple(remarks))
