"""``shard-worker process-shard``: a dataset in, its answers out, without a control plane."""

import argparse
import hashlib
import json
import logging
import os
import re
import socket
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from shard_worker import CONTRACT_VERSION, model_files
from shard_worker.contract import STOP_BEFORE_S
from shard_worker.errors import ClaimHeldError, ConfigError
from shard_worker.evalchemy import bounds, requests_of, with_answers
from shard_worker.fsio import write_atomic
from shard_worker.layout import ShardLayout
from shard_worker.rows import answers_from_bytes, requests_to_bytes
from shard_worker.run import run_shard
from shard_worker.signals import StopRequest

log = logging.getLogger(__name__)

ALIVE_S = 60.0
"""A shard elsewhere whose progress is younger than this is taken to be at work."""

_OUTPUT = re.compile(r"train-\d{5}-of-(?P<size>\d{5})\.parquet")


def process_shard(arguments: argparse.Namespace) -> None:
    """Answer one shard of a dataset. Started again, it makes only what is missing.

    Raises:
        WorkerError: see :func:`shard_worker.run.run_shard`.
    """
    size, rank = arguments.global_size, arguments.rank
    if not 0 <= rank < size:
        raise ConfigError(f"--rank is {rank}; it must be from 0 to {size - 1}.")
    output = Path(arguments.output_dataset)
    repository = _repository(arguments) if arguments.upload else None
    table = _read(arguments.input_dataset, offline=arguments.offline)
    if arguments.limit is not None:
        table = table.slice(0, arguments.limit)
    table = _with_system(table, arguments.system_instruction)
    requests = requests_of(table)
    model = _model(arguments.model_name, offline=arguments.offline)
    work = (arguments.work_dir or output / ".shard-worker").resolve()
    layout = ShardLayout(work, rank, size)
    layout.inputs.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(layout.spec, json.dumps(_spec(arguments, model), indent=2).encode())
    start, stop = bounds(table.num_rows, size, rank)
    write_atomic(layout.inputs, requests_to_bytes(requests[start:stop]))
    run_shard(layout, _next_attempt(layout), StopRequest())
    answers = answers_from_bytes(layout.output.read_bytes())[0]
    _drop_other_splits(output, size)
    file = output / f"train-{rank:05d}-of-{size:05d}.parquet"
    stream = BytesIO()
    pq.write_table(with_answers(table.slice(start, stop - start), answers), stream)
    write_atomic(file, stream.getvalue())
    failed = sum(answer.error is not None for answer in answers)
    log.info("%d answers, %d of them errors: %s", len(answers), failed, file)
    if repository is not None:
        _upload(file, repository)


def _read(source: str, *, offline: bool) -> pa.Table:
    path = Path(source)
    if not path.exists():
        path = _snapshot(source, "dataset", offline=offline)
    files = [path]
    if path.is_dir():
        found = sorted(one for one in path.rglob("*") if one.suffix in {".parquet", ".jsonl"})
        found = [one for one in found if not _hidden(one.relative_to(path))]
        files = [one for one in found if one.name.startswith("train")] or found
    if not files:
        raise ConfigError(f"{source} holds no .parquet or .jsonl file; name another dataset.")
    try:
        return pa.concat_tables(map(_read_file, files), promote_options="default")
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{source} cannot be read: {reason}; check the dataset.") from None


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_file(file: Path) -> pa.Table:
    if file.suffix == ".jsonl":
        return pyarrow.json.read_json(file)
    return pq.read_table(file)


def _model(name: str, *, offline: bool) -> Path:
    if Path(name).is_dir():
        return Path(os.path.abspath(name))  # noqa: PTH100 (a path in a Hub cache keeps its commit)
    return _snapshot(name, "model", offline=offline)


def _snapshot(name: str, kind: str, *, offline: bool) -> Path:
    """Find a Hub repository in the cache, or fetch it where the network may be used."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConfigError(
            f"The {kind} {name} does not exist; give a folder or a Hub id (org/name)."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(
            f"{name} is no folder, and without the package huggingface_hub it cannot be looked up "
            "on the Hub; install it, or give a folder."
        ) from None
    try:
        found = snapshot_download(name, repo_type=kind, local_files_only=offline)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        where = "in the local Hub cache" if offline else "on the Hub"
        raise ConfigError(
            f"The {kind} {name} is no folder and was not found {where}: {words}"
        ) from error
    return Path(found)


def _with_system(table: pa.Table, text: str | None) -> pa.Table:
    column = next((name for name in ("context", "messages") if name in table.column_names), None)
    if not text or column is None:
        return table
    rows = [
        [{"role": "system", "content": text}, *_chat(value)]
        for value in table.column(column).to_pylist()
    ]
    return table.set_column(table.column_names.index(column), column, pa.array(rows))


def _chat(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            read = json.loads(value)
        except ValueError:
            read = None
        return read if isinstance(read, list) else [{"role": "user", "content": value}]
    return list(value)


def _spec(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    revision = model_files.revision(model)
    engine = {
        "name": arguments.engine,
        "dtype": arguments.dtype,
        "tensor_parallel": arguments.tp,
        "max_model_len": arguments.max_model_len,
        "gpu_memory_utilization": None,
        "enforce_eager": arguments.enforce_eager,
        "trust_remote_code": arguments.trust_remote_code,
        "options": {},
    }
    shaping = [revision, arguments.engine, arguments.dtype, arguments.max_model_len]
    shaping += [model_files.chat_template_sha256(model), arguments.chat_template_args]
    return {
        "contract_version": CONTRACT_VERSION,
        "run_key": "by-hand",
        "fingerprint": hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[
            :32
        ],
        "world_size": arguments.global_size,
        "model": {"name": model.name, "path": str(model), "revision": revision},
        "engine": engine,
        "chat_template_args": arguments.chat_template_args,
        "balance": "static",
        "stop_before_s": STOP_BEFORE_S,
        "flush": {"rows": 32, "seconds": 10.0},
        "progress_seconds": 2.0,
    }


def _next_attempt(layout: ShardLayout) -> int:
    """Number this start, and refuse it while another one is at work.

    Raises:
        ClaimHeldError: it is.
    """
    numbers = [0]
    for path in layout.folder.glob("claim-*"):
        match = re.fullmatch(r"claim-(\d+)(?:-restart-\d+)?", path.name)
        if match:
            numbers.append(int(match[1]))
    last = max(numbers)
    if last and (holder := _alive(layout, layout.claim(last))):
        raise ClaimHeldError(
            f"shard {layout.rank} is being answered by {holder}; wait for it, or end it first."
        )
    return last + 1


def _alive(layout: ShardLayout, claim: Path) -> str | None:
    """Name the process that holds a claim, None if it has ended."""
    try:
        holder = json.loads(claim.read_text())
        progress = json.loads(layout.progress.read_text())
    except (OSError, ValueError):
        return None
    if progress.get("phase") in ("done", "failed"):
        return None
    name = f"process {holder['pid']} on {holder['node']}"
    if holder["node"] == (os.environ.get("SLURMD_NODENAME") or socket.gethostname()):
        try:
            os.kill(holder["pid"], 0)
        except ProcessLookupError:
            return None
        return name if holder["pid"] != os.getpid() else None
    return name if time.time() - layout.progress.stat().st_mtime < ALIVE_S else None


def _drop_other_splits(output: Path, size: int) -> None:
    """Remove answers of another number of shards, which would be read twice beside these.

    They are not lost: the work folder has them all, and they are not made again.
    """
    for file in output.glob("train-*.parquet"):
        match = _OUTPUT.fullmatch(file.name)
        if match and int(match["size"]) != size:
            file.unlink(missing_ok=True)


def _repository(arguments: argparse.Namespace) -> str:
    if arguments.offline:
        raise ConfigError(
            "--upload needs the network that --offline forbids; leave one of them out."
        )
    name = arguments.repo_id or arguments.output_dataset
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConfigError(f"{name} is no Hub dataset id; give --repo_id org/name.")
    return str(name)


def _upload(file: Path, repository: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
    api.upload_file(
        path_or_fileobj=file,
        path_in_repo=f"data/{file.name}",
        repo_id=repository,
        repo_type="dataset",
    )
    log.info("uploaded %s to %s", file.name, repository)
