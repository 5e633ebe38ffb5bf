"""Everything that an account has on a cluster, in one remote command: jobs and run folders."""

import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nightshard.clusters.cancelling import cancel_elements
from nightshard.clusters.commands import squeue_command
from nightshard.clusters.documents import Intent, RunIdentity
from nightshard.clusters.errors import TransportError
from nightshard.clusters.reconcile import Element, Orphan, RunFolder
from nightshard.clusters.sections import read_files, section_function, split_sections
from nightshard.clusters.slurm import elapsed_seconds, expand_indices, state_of
from nightshard.clusters.transport import Transport, run_checked

FORMAT = "%i|%T|%M|%V|%j|%o"
"""Element, state, run time, submit time, name and batch script (squeue(1)); the last two are what
may hold anything."""

_SCONTROL_CLOCK = re.compile(r"as of (\d+)")
_FILE = re.compile(r"\./(?P<run_key>[^/]+)/(?P<name>run|submission-(?P<label>[^/]+))\.json")
_MANIFEST = re.compile(r"shard-(\d+)-of-\d+\.manifest\.json")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found.

    Attributes:
        elements: all array elements of the account that Slurm lists, ended ones included.
        folders: run folders by run key.
    """

    elements: tuple[Element, ...]
    folders: Mapping[str, RunFolder]

    @property
    def clusters(self) -> set[str]:
        """Clusters of a federated site that submissions name."""
        intents = (one for folder in self.folders.values() for one in folder.intents.values())
        return {one.cluster for one in intents if one.cluster is not None}


async def take_inventory(transport: Transport, workdir: PurePosixPath) -> Inventory:
    """List all jobs and run folders; on federated sites a second command asks their clusters.

    Raises:
        TransportError: the answer is cut off, or squeue did not answer.
    """
    found = await _ask(transport, workdir, [])
    clusters = sorted(found.clusters)
    return await _ask(transport, workdir, clusters) if clusters else found


async def _ask(transport: Transport, workdir: PurePosixPath, clusters: Sequence[str]) -> Inventory:
    nonce = secrets.token_hex(8)
    script = inventory_script(workdir, nonce, clusters)
    answer = await transport.run(["sh", "-s"], stdin=script, idempotent=True)
    return parse_inventory(answer.stdout, nonce, workdir)


async def find_manifests(
    transport: Transport, workdir: PurePosixPath, run_keys: Iterable[str]
) -> set[tuple[str, int]]:
    """Return run key and rank of each manifest of some runs.

    Raises:
        TransportError: the connection failed.
    """
    folders = [str(workdir / "runs" / key / "outputs") for key in sorted(set(run_keys))]
    if not folders:
        return set()
    listing = await run_checked(
        transport, ["find", *folders, "-name", "*.manifest.json"], "Looking for manifests"
    )
    return {
        (path.parent.parent.name, int(match[1]))
        for path in map(PurePosixPath, listing.splitlines())
        if (match := _MANIFEST.fullmatch(path.name))
    }


async def cancel_orphans(transport: Transport, orphans: Iterable[Orphan]) -> None:
    """Cancel elements by id and name; what has ended meanwhile is left as it is.

    Raises:
        TransportError: see :func:`~nightshard.clusters.cancelling.cancel_elements`.
    """
    jobs: dict[tuple[str, str, str | None], list[int | None]] = {}
    for one in orphans:
        element = one.element
        jobs.setdefault((element.job_id, element.name, element.cluster), []).append(element.index)
    for (job_id, name, cluster), indices in jobs.items():
        await cancel_elements(transport, job_id, indices, name=name, cluster=cluster)


def inventory_script(workdir: PurePosixPath, nonce: str, clusters: Sequence[str] = ()) -> str:
    """Build the script for the standard input of a remote ``sh -s``.

    Ages are differences on the controller's own clock, which ``scontrol show config`` tells: the
    clocks of login node, controller and Airflow may disagree.

    Args:
        workdir: the profile's folder.
        nonce: random; it begins each section, so that no file's content can pass for one.
        clusters: clusters of a federated site; none asks the default one.
    """
    lines = [
        "LC_ALL=C; SLURM_TIME_FORMAT=%s; export LC_ALL SLURM_TIME_FORMAT",
        section_function(nonce),
    ]
    for cluster in clusters or [""]:
        chosen = [f"--clusters={cluster}"] if cluster else []
        squeue = squeue_command(cluster=cluster or None, columns=FORMAT)
        lines += [
            f"s {shlex.quote(f'clock {cluster}')}",
            f"{shlex.join(['scontrol', *chosen, 'show', 'config'])} 2>/dev/null </dev/null"
            " | grep -a 'as of'",
            f"s {shlex.quote(f'squeue {cluster}')}",
            f"{shlex.join(squeue)} 2>&1 </dev/null",
            's "status $?"',
        ]
    lines += [
        "s files",
        f"if cd -- {shlex.quote(str(workdir / 'runs'))} 2>/dev/null; then",
        "find . -mindepth 2 -maxdepth 2 \\( -name run.json -o -name 'submission-*.json' \\)"
        " -exec grep -as '' /dev/null {} +",
        "fi",
    ]
    return "\n".join([*lines, "s end", ""])


def parse_inventory(text: str, nonce: str, workdir: PurePosixPath) -> Inventory:
    """Read the answer.

    Raises:
        TransportError: the answer is cut off, or squeue did not answer.
    """
    sections = list(split_sections(text, nonce))
    if not sections or sections[-1][0] != "end":
        raise TransportError("The answer of the cluster was cut off.")
    files = read_files("\n".join(body for title, body in sections if title == "files"))
    return Inventory(tuple(_listed(sections)), _folders(files, workdir / "runs"))


def _listed(sections: Iterable[tuple[str, str]]) -> Iterator[Element]:
    clock: int | None = None
    listing, cluster = "", None
    for title, body in sections:
        name, _, detail = title.partition(" ")
        if name == "clock":
            told = _SCONTROL_CLOCK.search(body)
            clock = int(told[1]) if told else None
        elif name == "squeue":
            listing, cluster = body, detail or None
        elif name == "status":
            if detail != "0":
                raise TransportError(f"squeue did not answer: {' '.join(listing.split())}")
            for line in listing.splitlines():
                yield from _elements(line, clock, cluster)


def _elements(line: str, clock: int | None, cluster: str | None) -> Iterator[Element]:
    fields = line.split("|", FORMAT.count("|"))
    if len(fields) != FORMAT.count("|") + 1:
        return
    element, word, used, submitted, name, script = map(str.strip, fields)
    job_id, _, index = element.partition("_")
    if not job_id.isdigit():
        return
    age = elapsed_seconds(used)
    if clock is not None and submitted.isdigit():
        age = clock - int(submitted)
    indices: list[int | None] = [*expand_indices(index)] if index else [None]
    for each in indices:
        yield Element(job_id, each, state_of(word), name, script, age, cluster)


def _folders(files: Mapping[str, str], runs: PurePosixPath) -> dict[str, RunFolder]:
    identities: dict[str, RunIdentity | None] = {}
    intents: dict[str, dict[str, Intent]] = {}
    for path, text in files.items():
        match = _FILE.fullmatch(path)
        if match is None:
            continue
        run_key = match["run_key"]
        if match["label"] is None:
            identities[run_key] = RunIdentity.read(text)
        elif (intent := Intent.read(text)) is not None:
            intents.setdefault(run_key, {})[match["label"]] = intent
    return {
        key: RunFolder(runs / key, identities.get(key), intents.get(key, {}))
        for key in {*identities, *intents}
    }
