"""Nightshard: nightly evaluation of language-model checkpoints on Slurm clusters.

The rooms and who may import whom are drawn in ``docs/architecture.md``; import-linter keeps it so.
"""

__version__ = "0.1.0"
