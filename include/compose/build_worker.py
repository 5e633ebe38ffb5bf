"""Make the worker's environment and a model in the slurm image: ``build_worker.py vllm|echo``."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence

from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.local.model import quickstart_model
from nightshard.local.worker_env import worker_environment

ECHO_NEEDS = ("jsonschema>=4.23", "pyarrow>=21")


def build_vllm(settings: Settings, torch_index: str | None) -> None:
    """Install vLLM's CPU build and the quickstart's model, as ``make quickstart`` does."""
    python = worker_environment(
        settings.state / "worker-env",
        settings.home / "shard_worker" / "constraints-cpu.txt",
        torch_index,
        print,
    )
    converter = settings.home / "include" / "quickstart" / "convert_gguf.py"
    quickstart_model(settings.state / "models", python, converter, print)


def build_echo(settings: Settings) -> None:
    """Install what the worker needs without an engine, and a model folder that it can describe."""
    folder = settings.state / "worker-env"
    venv.create(folder, with_pip=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--no-cache-dir", "--quiet"]
    subprocess.run([*install, *ECHO_NEEDS], check=True)
    model = settings.state / "models" / "echo"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))


def main(arguments: Sequence[str]) -> int:
    """Build for one engine; 2 with a sentence for another."""
    engine, torch_index = [*arguments, "", ""][:2]
    settings = Settings.from_env(os.environ)
    try:
        if engine == "vllm":
            build_vllm(settings, torch_index or None)
        elif engine == "echo":
            build_echo(settings)
        else:
            raise UserError(f"WORKER_ENGINE is {engine!r}; choose vllm or echo.")
    except UserError as error:
        print(f"nightshard: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
