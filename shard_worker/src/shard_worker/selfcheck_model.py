"""Whether a model's files are all there, whole, and speak."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from shard_worker import model_files
from shard_worker.errors import ConfigError
from shard_worker.findings import GIB, Outcome, Wish, run_python

INDEX = "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"
LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself refuses a longer one."""

_TOKENIZER = """
import sys
from transformers import AutoTokenizer
from shard_worker.templating import render_prompt
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
ids = render_prompt(tokenizer, [{"role": "user", "content": "What is 1 + 1?"}], {})
print(len(ids), int(bool(tokenizer.chat_template)))
"""


def check_model(wish: Wish) -> Outcome:
    """See that every file of the weights is there, readable and whole."""
    model = _model(wish)
    model_files.check_model_folder(model)
    limit = model_files.max_model_len(model)
    files = weight_files(model)
    for file, tensors in files.items():
        check_weights(file, tensors)
    size = sum(file.stat().st_size for file in files) / GIB
    told = f"{len(files)} files of weights, {size:.2f} GiB, "
    if any(file.suffix != ".safetensors" for file in files):
        return Outcome(f"{told}not safetensors, so nobody can tell whether they are whole", "warn")
    if limit is None:
        return Outcome(f"{told}no longest sequence stated; set engine.max_model_len", "warn")
    return Outcome(f"{told}at most {limit} tokens")


def weights_gib(model: Path) -> float | None:
    """Return the size of the weights, None where they are not all there."""
    try:
        return sum(file.stat().st_size for file in weight_files(model)) / GIB
    except (ConfigError, OSError):
        return None


def weight_files(model: Path) -> Mapping[Path, frozenset[str]]:
    """Return the files of the weights, and the tensors that the index says are in each.

    Raises:
        ConfigError: there is none, one that the index names is missing, or the index is torn.
    """
    index = model / INDEX
    if index.is_symlink() or index.exists():
        return _indexed(model, index)
    for pattern in ("*.safetensors", "*.bin", "*.gguf"):
        if found := sorted(model.glob(pattern)):
            return dict.fromkeys(found, frozenset())
    raise ConfigError(f"{model} holds no weights (*.safetensors); copy the model again.")


def _indexed(model: Path, index: Path) -> Mapping[Path, frozenset[str]]:
    try:
        places = json.loads(index.read_text("utf-8"))["weight_map"]
        names = sorted(set(places.values()))
        files = {
            model / name: frozenset(t for t, f in places.items() if f == name) for name in names
        }
    except (ValueError, LookupError, AttributeError, TypeError):
        raise ConfigError(f"{index} is not an index of weights; copy the model again.") from None
    if missing := [file.name for file in files if not os.path.lexists(file)]:
        raise ConfigError(
            f"{len(missing)} of {len(files)} files of weights are missing in {model}, "
            f"{missing[0]} among them; copy the model again."
        )
    return files


def check_weights(file: Path, tensors: frozenset[str]) -> None:
    """Compare a file with what its header promises, and read both its ends.

    By the format's description (safetensors), eight bytes give the header's length, and the header
    each tensor's place.

    Raises:
        ConfigError: it is cut off, no such file, or cannot be read.
    """
    if not file.exists():
        raise ConfigError(f"{file} is a link to nothing; copy the model again, links followed.")
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
            stream.seek(max(0, size - 1))
            stream.read(1)
            stream.seek(8)
            length = int.from_bytes(start[:8], "little")
            header = stream.read(length) if length <= LARGEST_HEADER else b""
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read ({error.strerror}); check its mode, or copy it again."
        ) from None
    if start == LFS_POINTER:
        raise ConfigError(f"{file} is a Git LFS pointer, not weights; run git lfs pull.")
    if file.suffix == ".safetensors":
        _check_header(file, tensors, size, length, header)


def _check_header(
    file: Path, tensors: frozenset[str], size: int, length: int, header: bytes
) -> None:
    try:
        places = {key: one for key, one in json.loads(header).items() if key != "__metadata__"}
        ends = [one["data_offsets"][1] for one in places.values()]
        promised = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(f"{file} is torn at its start; copy the model again.") from None
    if size < promised:
        raise ConfigError(
            f"{file} is cut off: {size:,} bytes of {promised:,}; copy the model again."
        )
    if lacking := sorted(tensors - places.keys()):
        raise ConfigError(
            f"{file} lacks {lacking[0]}, which {INDEX} says is in it: files of two models are "
            "mixed; copy the model again."
        )


def check_tokenizer(wish: Wish) -> Outcome:
    """Load the tokeniser and render a chat, in a process of its own."""
    if wish.engine in ("echo", "openai"):
        return Outcome(f"{wish.engine} needs none")
    model = str(_model(wish))
    failure = f"The tokeniser or the chat template of {model} cannot be used"
    printed = run_python(wish, _TOKENIZER, failure, model).split()
    tokens, has_template = map(int, printed[-2:])
    if not has_template:
        return Outcome(
            "there is no chat template, as in a base model, so messages are joined by blank lines; "
            "a chat model needs its chat_template.jinja",
            "warn",
        )
    return Outcome(f"the chat template renders a question to {tokens} tokens")


def _model(wish: Wish) -> Path:
    if wish.model is None:
        raise ConfigError("No model was named; give --model.")
    return wish.model
