"""The manifest: what makes a shard's output count."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from shard_worker import CONTRACT_VERSION
from shard_worker.board import held_by
from shard_worker.contract import Spec, violations
from shard_worker.fsio import sha256_of, write_atomic
from shard_worker.layout import ShardLayout
from shard_worker.rows import Answer, answers_to_bytes
from shard_worker.slurm import Place

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Timings:
    """Seconds of this attempt; ``compile_s`` is a part of ``load_s``."""

    import_s: float = 0.0
    load_s: float = 0.0
    compile_s: float = 0.0
    generate_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is true of one process.

    Attributes:
        number: given by the orchestrator, from 1.
        place: where it runs.
        versions: of the packages that made the answers.
        gpu: name of the GPU, None without one.
        started_at: UTC.
        blocks: names of the blocks that the shard claimed, None where each keeps to its own.
        telemetry: what it did with its time.
    """

    number: int
    place: Place
    versions: dict[str, str]
    gpu: str | None
    started_at: datetime
    blocks: tuple[str, ...] | None = None
    telemetry: dict[str, Any] = field(default_factory=dict)


def write_output(layout: ShardLayout, spec: Spec, answers: Sequence[Answer]) -> None:
    """Write all answers of a shard, durably.

    Raises:
        OSError: disk full or gone.
    """
    layout.output.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"fingerprint": spec.fingerprint, "run_key": spec.run_key}
    write_atomic(layout.output, answers_to_bytes(answers, metadata))


def write_manifest(
    layout: ShardLayout,
    spec: Spec,
    answers: Sequence[Answer],
    attempt: Attempt,
    timings: Timings,
) -> dict[str, Any]:
    """Write the manifest of an output that is on disk already; it must be the last file.

    Returns:
        The manifest.
    """
    value = {
        "contract_version": CONTRACT_VERSION,
        "run_key": spec.run_key,
        "fingerprint": spec.fingerprint,
        "rank": layout.rank,
        "world_size": layout.world_size,
        "attempt": attempt.number,
        "rows": len(answers),
        "errors": sum(answer.error is not None for answer in answers),
        "output_file": layout.output.name,
        "sha256": sha256_of(layout.output),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "output_tokens": sum(answer.output_tokens for answer in answers),
        "timings": {name: round(value, 3) for name, value in asdict(timings).items()},
        "gpu": attempt.gpu,
        "node": attempt.place.node,
        "slurm": attempt.place.to_manifest(),
        "blocks": attempt.blocks if attempt.blocks is None else list(attempt.blocks),
        "telemetry": attempt.telemetry,
        "versions": attempt.versions,
        "started_at": attempt.started_at.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
    }
    write_atomic(layout.manifest, json.dumps(value, indent=2).encode())
    return value


def is_finished(layout: ShardLayout, spec: Spec) -> bool:
    """Tell whether this shard has a manifest that holds.

    It must validate, be of this run's fingerprint, and name the output by its checksum. One that
    does not hold is named in the log; the shard is then made again from its parts.
    """
    try:
        value = json.loads(layout.manifest.read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", layout.manifest, error)
        return False
    if fault := _fault(value, layout, spec):
        log.warning("%s %s; the shard is made again", layout.manifest.name, fault)
        return False
    return True


def _fault(value: Any, layout: ShardLayout, spec: Spec) -> str | None:
    if wrong := violations("manifest", value):
        return f"is not valid: {wrong[0]}"
    expected = {
        "fingerprint": spec.fingerprint,
        "rank": layout.rank,
        "world_size": layout.world_size,
    }
    for key, wanted in expected.items():
        if value[key] != wanted:
            return f"has another {key}"
    if spec.steal and held_by(layout.blocks, layout.rank) - set(value.get("blocks") or ()):
        # An attempt that was given up wrote its manifest after the one that replaced it.
        return "lacks blocks that its shard has claimed"
    if not layout.output.is_file() or sha256_of(layout.output) != value["sha256"]:
        return f"names another content than that of {layout.output.name}"
    return None
