"""What a model's folder says of itself, without importing anything heavy."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from shard_worker.errors import ConfigError
from shard_worker.fsio import sha256_of

WHOLE_FILE_LIMIT = 16 << 20
EDGE = 1 << 20

_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "max_seq_length",
)
_ALREADY_SCALED = {
    "default",
    "llama3",
    "longrope",
    "su",
    "yarn",
    "deepseek_yarn",
    "deepseek_llama_scaling",
    "mrope",
}


def check_model_folder(path: Path) -> None:
    """Refuse a model that is not there.

    Raises:
        ConfigError: no folder, or one without ``config.json``.
    """
    if not path.is_dir():
        raise ConfigError(f"The model folder {path} does not exist; check the path or stage it.")
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"The folder {path} has no config.json, so it is not a model that can be loaded; "
            "name the folder that holds the weights."
        )


RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes as ``max_lora_rank``."""


def adapter_rank(path: Path) -> int:
    """Return the ``max_lora_rank`` that a LoRA adapter needs.

    Raises:
        ConfigError: the folder holds no adapter, or one that vLLM cannot run.
    """
    value = _json(path / "adapter_config.json")
    if not value:
        raise ConfigError(
            f"The folder {path} has no adapter_config.json, so it is not a LoRA adapter; name the "
            "folder that holds it."
        )
    rank = value.get("r")
    enough = [one for one in RANKS if isinstance(rank, int) and one >= rank]
    if not enough:
        raise ConfigError(
            f"The adapter {path} has the rank {rank!r}; vLLM takes up to {RANKS[-1]}, so merge it "
            "into the weights."
        )
    return enough[0]


def revision(path: Path) -> str:
    """Name the exact weights in a folder.

    Inside a Hugging Face cache (``…/snapshots/<commit>``) it is the commit. Elsewhere it is
    ``sha256:`` and a digest over the sorted list of (relative name, size, content digest) of all
    files outside hidden folders. Files up to 16 MiB are digested whole; of larger ones the first
    and the last MiB are, since reading hundreds of GiB on a login node is out of the question: a
    change that keeps the size and touches neither edge of a file would go unseen.

    Raises:
        OSError: a file cannot be read.
    """
    if path.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", path.name):
        return path.name
    entries = [
        (file.relative_to(path).as_posix(), file.stat().st_size, _content_digest(file))
        for file in sorted(path.rglob("*"))
        if file.is_file() and not _hidden(file.relative_to(path))
    ]
    listing = json.dumps(sorted(entries), separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def weights_bytes(path: Path) -> int:
    """Return the size of the weight files in bytes: in safetensors where there are some."""
    for ending in (".safetensors", ".bin", ".gguf"):
        if size := sum(file.stat().st_size for file in path.glob(f"*{ending}")):
            return size
    return 0


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _content_digest(file: Path) -> str:
    size = file.stat().st_size
    if size <= WHOLE_FILE_LIMIT:
        return sha256_of(file)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(EDGE))
        stream.seek(size - EDGE)
        digest.update(stream.read(EDGE))
    return digest.hexdigest()


def chat_template_sha256(path: Path) -> str | None:
    """Digest the chat template: ``chat_template.jinja``, else the one in the tokeniser's config.

    Returns:
        64 hex digits, or None for a model without a template. Of several named templates the one
        called ``default`` counts, as that is the one that is rendered.
    """
    own_file = path / "chat_template.jinja"
    if own_file.is_file():
        return hashlib.sha256(own_file.read_bytes()).hexdigest()
    template = _json(path / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default", json.dumps(named, sort_keys=True))
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def max_model_len(path: Path) -> int | None:
    """Return the longest sequence that the model's own files allow, in tokens.

    It follows vLLM's derivation: the smallest of the length keys of ``config.json`` (of its
    ``text_config`` where there is one) and of the tokeniser's ``model_max_length``, times the
    factor of those RoPE scalings whose length keys are given unscaled.
    """
    config = _json(path / "config.json")
    config = {**config, **(config.get("text_config") or {})}
    limits = [value for key in _LENGTH_KEYS if isinstance(value := config.get(key), int)]
    tokenizer_limit = _json(path / "tokenizer_config.json").get("model_max_length")
    # transformers writes int(1e30) where the tokeniser has no limit of its own.
    if isinstance(tokenizer_limit, int) and tokenizer_limit < 1 << 40:
        limits.append(tokenizer_limit)
    if not limits:
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    factor = 1.0 if kind in _ALREADY_SCALED else float(rope.get("factor") or 1.0)
    return int(min(limits) * factor)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ConfigError(f"{path} is not valid JSON; copy the model again.") from None
    return value if isinstance(value, dict) else {}
