"""The check of a node with real vLLM and a real tokeniser."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from worker_testing import KILL_AFTER, SOURCE

pytestmark = pytest.mark.integration

LONGEST_S = 60


def selfcheck(
    python: str, model: Path, work: Path, engine: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    words = ["-m", "shard_worker", "selfcheck", "--engine", engine, "--model", str(model)]
    done = subprocess.run(
        [python, *words, "--work-dir", str(work), "--json"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=KILL_AFTER,
        check=False,
    )
    return done.returncode, {one["what"]: one for one in json.loads(done.stdout)}


def test_a_node_with_vllm_and_a_model_passes_in_under_a_minute(
    worker_python: str, tiny_model: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    code, found = selfcheck(worker_python, tiny_model, tmp_path, "vllm")
    assert time.monotonic() - began < LONGEST_S
    assert code == 0, found
    assert found["import"]["sentence"] == "vllm can be imported"
    assert found["model"]["sentence"].endswith("at most 512 tokens")
    assert "the chat template renders a question to" in found["tokenizer"]["sentence"]


LOOK = """
import sys
from pathlib import Path
from shard_worker.errors import ConfigError
from shard_worker.findings import Wish
from shard_worker.selfcheck_model import check_tokenizer
for name in sys.argv[1:]:
    try:
        found = check_tokenizer(Wish("vllm", Path(name), Path(name), gpu=False))
        print(found.level, found.sentence)
    except ConfigError as error:
        print("fail", error)
"""


def test_templates_and_tokenisers_that_are_missing_or_broken_are_told_apart(
    worker_python: str, tiny_model: Path, tmp_path: Path
) -> None:
    bare, images, torn = (shutil.copytree(tiny_model, tmp_path / name) for name in "abc")
    (bare / "chat_template.jinja").unlink()
    (images / "chat_template.jinja").write_text("{{ raise_exception('only for images') }}")
    (torn / "tokenizer.json").write_text('{"version": ')
    printed = subprocess.run(
        [worker_python, "-c", LOOK, bare, images, torn],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=KILL_AFTER,
        check=True,
    ).stdout.splitlines()
    assert len(printed) == 3
    assert printed[0].startswith("warn there is no chat template, as in a base model")
    assert printed[1].startswith(f"fail The tokeniser or the chat template of {images} cannot be")
    assert "only for images" in printed[1]
    assert printed[2].startswith(f"fail The tokeniser or the chat template of {torn} cannot be")
