"""Sets of benchmarks that people ask for by one word."""

from dataclasses import dataclass

SIX = ("LiveCodeBench", "AIME24", "AIME25", "AMC23", "GPQADiamond", "MATH500")
"""What Evalchemy's distributed evaluation asks by default."""

OPTIMISE = {
    "efficiency": "efficiency: as quick as costs 10 % more GPU time at most",
    "balanced": "balanced: time and GPU time count alike",
    "rush": "rush: as quick as it gets",
}
"""What the number of shards is chosen by, where earlier runs choose it."""

_MATH = ("AIME24", "AIME25", "AMC23", "HMMT25", "MATH500", "GSM8K")
_CODE = ("LiveCodeBench", "HumanEvalPlus", "MBPPPlus")


@dataclass(frozen=True, slots=True)
class Preset:
    """What one word stands for.

    Attributes:
        title: for people.
        tasks: benchmarks.
        limit: problems of each, None for all.
    """

    title: str
    tasks: tuple[str, ...]
    limit: int | None = None


PRESETS = {
    "smoke": Preset("does it run at all: 8 small problems", ("Starter",), 8),
    "six": Preset("the six of Evalchemy", SIX),
    "math": Preset("mathematics", _MATH),
    "code": Preset("programs", _CODE),
    "full": Preset("all of these and more", (*_MATH, *_CODE, "GPQADiamond", "MMLUPro", "JEEBench")),
}
