"""Finding a model on a cluster, fetching it where the login node may, and describing it."""

import json
import re
from collections.abc import Awaitable, Callable

from pydantic import TypeAdapter, ValidationError

from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.remote_python import last_line, run_worker_python
from nightshard.clusters.transport import Transport
from nightshard.core.errors import UserError
from nightshard.core.fingerprint import ModelDescription

Fetch = Callable[[str, str], Awaitable[str]]
"""Takes a Hub id and a revision, and returns the folder on the cluster."""

DOWNLOAD_TIMEOUT_S = 3600.0
DEFAULT_REVISION = "main"
BAD_CONFIGURATION = 2

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")

_COMMIT = re.compile(r"[0-9a-f]{40}")

WEIGHTS_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"

# Arguments: the models folder, org--name, revision, a file that must be there. Prints the folder.
_LOOK_UP = """\
cache="$1/models--$2"
if [ -f "$cache/refs/$3" ]; then commit=$(cat "$cache/refs/$3"); else commit=$3; fi
for folder in "$1/$2/$3" "$cache/snapshots/$commit"; do
  if [ -f "$folder/$4" ]; then
    touch "$folder/.nightshard-used" 2>/dev/null
    printf '%s\\n' "$folder"; exit 0
  fi
done
exit 1
"""

# Arguments: Hub id, revision, models folder.
_DOWNLOAD = """\
import os, pathlib, shutil, sys
try:
    from huggingface_hub import HfApi, snapshot_download
    model, revision, folder = sys.argv[1:]
    info = HfApi().model_info(model, revision=revision, files_metadata=True)
    done = os.path.join(folder, "models--" + model.replace("/", "--"), "snapshots", info.sha)
    size = 0 if os.path.isdir(done) else sum(one.size or 0 for one in info.siblings)
    os.makedirs(folder, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        gib = 1 << 30
        sys.exit(f"it takes {size / gib:.1f} GiB and {folder} has {free / gib:.1f} GiB free")
    found = snapshot_download(model, revision=info.sha, cache_dir=folder)
    pathlib.Path(found, ".nightshard-used").touch()
    print(found)
except ImportError:
    raise
except Exception as error:
    sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
"""


async def resolve_model(
    transport: Transport,
    profile: ClusterProfile,
    model: str,
    revision: str | None = None,
    *,
    holds: str = WEIGHTS_FILE,
    fetch: Fetch | None = None,
) -> str:
    """Find a model's folder on the cluster, or have it fetched as the profile says.

    A fetched model lies under its commit. The Hub's client locks each file, resumes what was cut
    and checks sizes and checksums; the room on disk is looked at first.

    Args:
        transport: connection to the login node.
        profile: the cluster.
        model: a folder there (absolute, or below ``~/``), or a Hub id ``org/name``, which is looked
            for as ``<models.dir>/<org>--<name>/<revision>`` and in the layout of the Hub's cache.
        revision: branch, tag or commit of a Hub id; ``main`` by default.
        holds: file by which its folder is known.
        fetch: fetches it where the profile's ``download`` is not ``login``.

    Returns:
        Absolute remote path.

    Raises:
        UserError: there is no such model, or it could not be fetched.
        TransportError: the connection failed.
    """
    if model.startswith(("/", "~/")):
        return await _folder(transport, profile, model, revision)
    revision = revision or DEFAULT_REVISION
    if not _HUB_ID.fullmatch(model) or ".." in model:
        raise UserError(
            f"{model!r} is no model; give an absolute folder on the cluster or a Hub id org/name."
        )
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise UserError(f"{revision!r} is no revision; give a branch, a tag or a commit.")
    arguments = [profile.models.dir, model.replace("/", "--"), revision, holds]
    found = await transport.run(["sh", "-c", _LOOK_UP, "look-up", *arguments], idempotent=True)
    fetched = profile.models.download != "none"
    # A commit stays what it is; a branch moves, so the Hub is asked although a copy is here.
    if found.ok and (not fetched or _COMMIT.fullmatch(revision)):
        return found.stdout.strip()
    if fetched and fetch is not None:
        return await fetch(model, revision)
    if fetched:
        return await download(transport, profile, model, revision)
    raise UserError(
        f"The model {model} at revision {revision} is not on cluster {profile.name!r}: nothing in "
        f"{profile.models.dir}, and the profile allows no download; copy it to "
        f"{profile.models.dir}/{arguments[1]}/{revision}."
    )


async def _folder(
    transport: Transport, profile: ClusterProfile, model: str, revision: str | None
) -> str:
    if revision is not None:
        raise UserError(
            f"A revision was given for the folder {model}; leave it empty, or give a Hub id."
        )
    script = 'case "$1" in "~/"*) set -- "$HOME/${1#??}";; esac; cd -- "$1" && pwd'
    found = await transport.run(["sh", "-c", script, "folder", model], idempotent=True)
    if not found.ok:
        raise UserError(
            f"The model folder {model} does not exist on cluster {profile.name!r}; check the path."
        )
    return found.stdout.strip()


async def download(transport: Transport, profile: ClusterProfile, model: str, revision: str) -> str:
    """Fetch a model from the Hub on the node that a transport leads to; return its folder.

    Raises:
        UserError: it could not be fetched, or the disk has no room for it.
        TransportError: the connection failed.
    """
    result = await run_worker_python(
        transport,
        profile,
        ["-", model, revision, profile.models.dir],
        stdin=_DOWNLOAD,
        accept=(0, 1),
        timeout_s=DOWNLOAD_TIMEOUT_S,
        offline=False,
    )
    if result.ok:
        return last_line(result.stdout)
    raise UserError(
        f"The model {model} at revision {revision} could not be fetched to cluster "
        f"{profile.name!r}: {last_line(result.stderr).rstrip('.')}."
    )


async def describe_model(
    transport: Transport,
    profile: ClusterProfile,
    worker_zip: str,
    path: str,
    *,
    engine: str,
    adapter: str | None = None,
) -> ModelDescription:
    """Ask the staged worker what a model is; reads files only and loads nothing.

    Args:
        transport: connection to the login node.
        profile: the cluster.
        worker_zip: what :func:`nightshard.clusters.staging.ensure_worker` returned.
        path: the model's absolute remote folder.
        engine: engine that will run it.
        adapter: absolute remote folder of a LoRA adapter on top of it.

    Raises:
        UserError: the worker's own sentence, for example that the folder holds no model.
        TransportError: the connection failed.
    """
    result = await run_worker_python(
        transport,
        profile,
        [
            *("-m", "shard_worker", "describe", "--model", path, "--engine", engine),
            *(("--adapter", adapter) if adapter is not None else ()),
        ],
        worker_zip=worker_zip,
        accept=(0, BAD_CONFIGURATION),
    )
    if not result.ok:
        raise UserError(last_line(result.stderr) or f"{path} is no model that can be run.")
    try:
        value = json.loads(last_line(result.stdout))
        return TypeAdapter(ModelDescription).validate_python(value)
    except (ValueError, ValidationError):
        raise UserError(
            f"The worker on cluster {profile.name!r} described {path} in a form that this "
            "Nightshard does not know; upgrade the older of the two."
        ) from None
