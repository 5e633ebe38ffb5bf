"""The options of ``process-shard``, apart from its code, whose imports take a second."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, spelled as Evalchemy's ``process_shard.py`` has them, or with dashes."""

    def add(name: str, **more: Any) -> None:
        dashed = name.replace("_", "-")
        parser.add_argument(*dict.fromkeys((f"--{name}", f"--{dashed}")), **more)

    add("global_size", type=int, required=True, help="number of shards")
    add("rank", type=int, required=True, help="number of this shard, from 0")
    add("input_dataset", required=True, help="folder, file or Hub dataset id")
    add("model_name", required=True, help="folder of the weights or Hub model id")
    add("output_dataset", required=True, help="folder for the answers")
    add("tp", type=int, default=1, help="GPUs over which each layer is split")
    add("upload", action="store_true", help="put this shard's answers on the Hub")
    add("repo_id", help="Hub dataset to upload to; the output_dataset where it is org/name")
    add("offline", action="store_true", help="use no network at all")
    add("engine", default="vllm", choices=("vllm", "transformers", "echo"))
    add("dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    add("max_model_len", type=int, help="longest prompt and answer together, in tokens")
    add("chat_template_args", type=json.loads, default={}, metavar="JSON")
    add("system_instruction", help="put before each chat")
    add("trust_remote_code", action="store_true", help="run code in the model's folder")
    add("enforce_eager", action="store_true", help="start sooner, generate slower")
    add("limit", type=int, help="only the first rows of the dataset")
    add("work_dir", type=Path, help="where finished answers are kept; beside the output by default")
