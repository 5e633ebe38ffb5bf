"""``shard-worker selfcheck``: whether a shard could run here, before GPU hours are spent."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from shard_worker import __version__, model_files
from shard_worker.errors import ConfigError
from shard_worker.gpu import find_gpus
from shard_worker.versions import versions

IMPORT_S = 45.0
LEAST_FREE_GIB = 1.0
_GIB = 1 << 30

_TOKENIZER = """
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
if tokenizer.chat_template:
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}],
        tokenize=True, add_generation_prompt=True, return_dict=False)
    print(f"the chat template renders a greeting to {len(ids)} tokens")
else:
    print("there is no chat template, so chats are joined by blank lines")
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: a word or two.
        ok: False where a shard could not run.
        sentence: what was found; if it is not fine, also what to do.
    """

    what: str
    ok: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be run here.

    Attributes:
        engine: of the worker.
        model: folder of the weights, None for no model.
        work: folder on the shared file system.
        gpu: whether a GPU must be here.
    """

    engine: str
    model: Path | None
    work: Path
    gpu: bool


def selfcheck(wish: Wish) -> Iterator[Finding]:
    """Look at one thing after the other; each is looked at whatever the others say."""
    checks: list[tuple[str, Callable[[Wish], str]]] = [
        ("packages", check_packages),
        ("import", check_import),
        ("gpu", check_gpu),
        ("disk", check_disk),
        ("links", check_links),
    ]
    if wish.model is not None:
        checks += [("model", check_model), ("tokenizer", check_tokenizer)]
    for what, check in checks:
        try:
            yield Finding(what, True, check(wish))
        except ConfigError as error:
            yield Finding(what, False, str(error))
        except OSError as error:
            yield Finding(what, False, f"{error.filename}: {error.strerror}.")


def check_packages(wish: Wish) -> str:
    """Say which versions are here."""
    found = {"shard_worker": __version__, **versions(wish.engine)}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def check_import(wish: Wish) -> str:
    """Import the engine, in a process of its own: one that crashes or hangs is a sentence."""
    name = f"shard_worker.engines.{wish.engine}"
    _python(f"import {name}", f"{name} cannot be imported")
    return f"{wish.engine} can be imported"


def check_gpu(wish: Wish) -> str:
    """Look for the GPUs of this job."""
    gpus = find_gpus()
    if gpus is None:
        if wish.gpu:
            raise ConfigError(
                "NVML finds no GPU; run this on a GPU node with a GPU asked for "
                "(--gres or --gpus), and check CUDA_VISIBLE_DEVICES."
            )
        return "no GPU here, as on a login node; --gpu makes this a failure"
    gpus.look()
    return f"{gpus.count} GPUs, {gpus.use().memory_gib:.1f} GiB in use on the fullest"


def check_disk(wish: Wish) -> str:
    """Write a file to the work folder and to the temporary one, and see what is free."""
    told = []
    for folder in (wish.work, Path(tempfile.gettempdir())):
        if not folder.is_dir():
            raise ConfigError(f"The folder {folder} does not exist; make it or name another.")
        try:
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                file.write(b"x" * (1 << 20))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"{folder} cannot be written to ({error.strerror}); check its quota and mode."
            ) from None
        free = shutil.disk_usage(folder).free / _GIB
        if free < LEAST_FREE_GIB:
            raise ConfigError(f"{folder} has {free:.2f} GiB left; free some space.")
        told.append(f"{folder} has {free:,.0f} GiB free")
    return ", ".join(told)


def check_links(wish: Wish) -> str:
    """Make a hard link in the work folder, by which shards share their work."""
    if not wish.work.is_dir():
        raise ConfigError(f"The folder {wish.work} does not exist; make it or name another.")
    with tempfile.TemporaryDirectory(dir=wish.work) as name:
        source = Path(name) / "a"
        source.touch()
        try:
            (Path(name) / "b").hardlink_to(source)
        except OSError as error:
            raise ConfigError(
                f"{wish.work} makes no hard links ({error.strerror}), by which shards share their "
                "work; set defaults.balance to static in the profile, or use another folder."
            ) from None
    return "hard links work, so shards can share their work"


def check_model(wish: Wish) -> str:
    """See that every file of the weights is there and whole."""
    model = _model(wish)
    model_files.check_model_folder(model)
    files = _weights(model)
    for file in files:
        _check_safetensors(file)
    size = sum(file.stat().st_size for file in files) / _GIB
    limit = model_files.max_model_len(model)
    return f"{len(files)} files of weights, {size:.2f} GiB, at most {limit} tokens"


def check_tokenizer(wish: Wish) -> str:
    """Load the tokeniser and render a chat, in a process of its own."""
    if wish.engine in ("echo", "openai"):
        return f"{wish.engine} needs none"
    model = str(_model(wish))
    return _python(_TOKENIZER, f"The tokeniser of {model} cannot be used", model).strip()


def _model(wish: Wish) -> Path:
    if wish.model is None:
        raise ConfigError("No model was named; give --model.")
    return wish.model


def _weights(model: Path) -> list[Path]:
    index = model / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, LookupError, AttributeError):
            raise ConfigError(
                f"{index} is not an index of weights; copy the model again."
            ) from None
        if missing := [name for name in names if not (model / name).is_file()]:
            raise ConfigError(
                f"{len(missing)} of {len(names)} files of weights are missing in {model}, "
                f"{missing[0]} among them; copy the model again."
            )
        return [model / name for name in names]
    found = sorted(model.glob("*.safetensors")) or sorted(model.glob("*.bin"))
    if not found:
        raise ConfigError(f"{model} holds no weights (*.safetensors); copy the model again.")
    return found


def _check_safetensors(file: Path) -> None:
    """Compare a file's size with what its header promises.

    By the format's description (safetensors), eight bytes give the header's length, and the header
    each tensor's place.
    """
    if file.suffix != ".safetensors":
        return
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, size)))
        ends = [one["data_offsets"][1] for key, one in header.items() if key != "__metadata__"]
    except (ValueError, LookupError, TypeError):
        raise ConfigError(f"{file} is torn at its start; copy the model again.") from None
    promised = 8 + length + max(ends, default=0)
    if size < promised:
        raise ConfigError(f"{file} has {size:,} bytes of {promised:,}; copy the model again.")


def _python(code: str, failure: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=IMPORT_S,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{failure}: nothing happened for {IMPORT_S:.0f} s; is the environment on a slow disk?"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ConfigError(f"{failure}: {last}; mend the environment of {sys.executable}.")
    return done.stdout


def report(findings: Iterator[Finding], *, as_json: bool) -> bool:
    """Print findings as they come; return whether all is fine."""
    fine, found = True, []
    for finding in findings:
        fine &= finding.ok
        found.append(asdict(finding))
        if not as_json:
            mark = "ok  " if finding.ok else "FAIL"
            print(f"{mark} {finding.what:10} {finding.sentence}", flush=True)
    if as_json:
        print(json.dumps(found))
    return fine
