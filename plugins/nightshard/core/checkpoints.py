"""Which family a checkpoint belongs to, and at which training step it was taken. Pure."""

import re
from dataclasses import dataclass
from pathlib import PurePath

_STEP = re.compile(
    r"(?:^|[-_./])(?:checkpoint|ckpt|global[-_]?step|steps?|iter(?:ation)?)[-_=]?0*(\d{1,15})$",
    re.IGNORECASE,
)
"""``checkpoint-500`` (Hugging Face Trainer), ``global_step1000`` (DeepSpeed), ``iter_0001000``
(Megatron), ``step1000`` (the revisions of Pythia)."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a checkpoint stands in its training.

    Attributes:
        family: what the checkpoints of one training share: their name without the step.
        step: training step, None where neither name nor revision says it.
    """

    family: str
    step: int | None


def checkpoint_of(model: str, revision: str | None = None) -> Checkpoint:
    """Read family and step from a model's name and revision, as training programs write them.

    Args:
        model: a folder or a Hub id.
        revision: as it was asked for, such as ``step1000``.
    """
    if revision is not None and (found := _STEP.search(revision)):
        before = revision[: found.start()]
        return Checkpoint(f"{model}@{before}" if before else model, int(found[1]))
    path = model.rstrip("/")
    found = _STEP.search(path)
    if found is None:
        return Checkpoint(_label(path), None)
    return Checkpoint(_label(path[: found.start()].rstrip("/")) or _label(path), int(found[1]))


def _label(path: str) -> str:
    return PurePath(path).name if path.startswith(("/", "~", ".")) else path
