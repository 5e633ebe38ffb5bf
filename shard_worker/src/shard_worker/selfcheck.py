"""``shard-worker selfcheck``: whether a shard could run here, before GPU hours are spent."""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shard_worker import __version__
from shard_worker.errors import ConfigError
from shard_worker.findings import Finding, Outcome, Wish, run_python
from shard_worker.selfcheck_disk import check_disk, check_links, check_quota
from shard_worker.selfcheck_gpu import check_gpu
from shard_worker.selfcheck_model import check_model, check_tokenizer
from shard_worker.versions import BESIDE, versions

Check = Callable[[Wish], Outcome]
Version = tuple[int, ...]

RANGES: Mapping[str, tuple[Version, Version | None]] = {
    "python": ((3, 11), (3, 14)),
    "pyarrow": ((21,), None),
    "jsonschema": ((4, 23), None),
    "vllm": ((0, 32), (0, 34)),
}
"""From, and before: as in this package's ``pyproject.toml``, which a worker in a zip lacks."""

NEEDS = ("jsonschema", "pyarrow")
MARKS = {"ok": "ok  ", "note": "note", "warn": "WARN", "fail": "FAIL"}


def main(arguments: argparse.Namespace) -> None:
    """Look at all that ``shard-worker selfcheck`` was asked for and print it.

    Raises:
        ConfigError: something failed, or there is no such engine.
    """
    if arguments.engine not in BESIDE:
        known = ", ".join(BESIDE)
        raise ConfigError(f"There is no engine {arguments.engine!r}; choose one of {known}.")
    # Not resolve(): a path inside a Hub cache must keep its name.
    model = Path(os.path.abspath(arguments.model.expanduser())) if arguments.model else None  # noqa: PTH100
    wish = Wish(arguments.engine, model, arguments.work_dir.absolute(), arguments.gpu)
    if not report(selfcheck(wish), as_json=arguments.json):
        raise ConfigError("this node cannot run a shard as it is; see what failed above.")


def selfcheck(wish: Wish) -> Iterator[Finding]:
    """Look at one thing after the other; each is looked at whatever the others say."""
    checks: list[tuple[str, Check]] = [
        ("python", check_python),
        ("packages", check_packages),
        ("import", check_import),
        ("gpu", check_gpu),
        ("disk", check_disk),
        ("links", check_links),
        ("quota", check_quota),
    ]
    if wish.model is not None:
        checks += [("model", check_model), ("tokenizer", check_tokenizer)]
    return (_look(what, check, wish) for what, check in checks)


def _look(what: str, check: Check, wish: Wish) -> Finding:
    try:
        outcome = check(wish)
    except ConfigError as error:
        return Finding(what, "fail", str(error))
    except OSError as error:
        return Finding(what, "fail", f"{error.filename or what}: {error.strerror or error}.")
    except Exception as error:  # noqa: BLE001 (one check's own fault leaves the others alone)
        return Finding(what, "fail", f"The check broke off ({error!r}); report this.")
    return Finding(what, outcome.level, outcome.sentence)


def check_python(wish: Wish) -> Outcome:
    """See that this Python is one that the worker was made for."""
    here = platform.python_version()
    if complaint := out_of_range("python", here):
        raise ConfigError(f"{complaint}; make the worker's environment with another Python.")
    return Outcome(f"{here} at {sys.executable}")


def check_packages(wish: Wish) -> Outcome:
    """See that the packages are here, in versions that the worker was made for."""
    complaints, found = [], {"shard_worker": __version__}
    for name in NEEDS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            complaints.append(f"{name} is not installed")
    try:
        found |= {name: one for name, one in versions(wish.engine).items() if name != "python"}
    except ConfigError as error:
        complaints.append(str(error).rstrip("."))
    complaints += [told for name, one in found.items() if (told := out_of_range(name, one))]
    if complaints:
        raise ConfigError(
            f"{'; '.join(complaints)}; shard_worker/requirements.lock has versions that work."
        )
    return Outcome(", ".join(f"{name} {version}" for name, version in found.items()))


def out_of_range(name: str, found: str) -> str | None:
    """Return the beginning of a sentence if a version is outside of :data:`RANGES`."""
    first, before = RANGES.get(name, ((), None))
    here = _numbers(found)
    if here < first:
        return f"{name} {found} is too old, the worker needs {_dotted(first)} or later"
    if before is not None and here >= before:
        return f"{name} {found} is too new, the worker was tested below {_dotted(before)}"
    return None


def _numbers(found: str) -> Version:
    match = re.match(r"\d+(\.\d+)*", found)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _dotted(numbers: Version) -> str:
    return ".".join(map(str, numbers))


def check_import(wish: Wish) -> Outcome:
    """Import what the worker and its engine import."""
    name = f"shard_worker.engines.{wish.engine}"
    run_python(wish, f"import shard_worker.run, {name}", f"{name} cannot be imported")
    return Outcome(f"{wish.engine} can be imported")


def report(findings: Iterable[Finding], *, as_json: bool) -> bool:
    """Print findings as they come; return whether a shard could run."""
    fine, found = True, []
    for finding in findings:
        fine &= finding.ok
        found.append({**asdict(finding), "ok": finding.ok})
        if not as_json:
            print(f"{MARKS[finding.level]} {finding.what:10} {finding.sentence}", flush=True)
    if as_json:
        print(json.dumps(found))
    return fine
