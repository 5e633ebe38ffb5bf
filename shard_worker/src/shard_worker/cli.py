"""The command line."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shard_worker import __version__
from shard_worker.by_hand_options import add_arguments as add_by_hand
from shard_worker.errors import Exit, WorkerError
from shard_worker.failures import is_disk_full
from shard_worker.offline import go_offline
from shard_worker.versions import BESIDE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shard-worker", description=__doc__)
    parser.add_argument("--version", action="version", version=f"shard-worker {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="answer one shard of a run")
    run.add_argument("--run-dir", type=Path, required=True, help="the run's folder")
    run.add_argument("--rank", type=int, required=True, help="number of the shard, from 0")
    run.add_argument("--world-size", type=int, required=True, help="number of shards")
    run.add_argument("--attempt", type=int, default=1, help="number of this attempt, from 1")
    run.add_argument("--seat", type=int, default=0, help="which part of the job's node, from 0")
    run.add_argument("--seats", type=int, default=1, help="number of shards that share the job")

    commands.add_parser("assist", help="lend this node's GPUs to a shard on another node")

    describe = commands.add_parser("describe", help="print what is known of a model, as JSON")
    describe.add_argument("--model", required=True, help="folder of the weights")
    describe.add_argument("--adapter", help="folder of a LoRA adapter")
    describe.add_argument("--engine", default="vllm", choices=sorted(BESIDE))

    check = commands.add_parser("selfcheck", help="find out whether a shard could run here")
    model = check.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="folder of the weights")
    model.add_argument("--no-model", action="store_true", help="look at no model")
    check.add_argument("--engine", default="vllm", help=f"one of {', '.join(BESIDE)}")
    check.add_argument("--work-dir", type=Path, default=Path(), help="folder on the shared disk")
    check.add_argument("--gpu", action="store_true", help="a GPU must be here")
    check.add_argument("--json", action="store_true", help="print one JSON list")

    by_hand = commands.add_parser("process-shard", help="answer one shard of a dataset by hand")
    add_by_hand(by_hand)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        An exit code, see :class:`shard_worker.errors.Exit`.
    """
    _log_to_stderr()
    arguments = _parser().parse_args(argv)
    if getattr(arguments, "offline", True):
        go_offline(os.environ)
    try:
        _COMMANDS[arguments.command](arguments)
    except WorkerError as error:
        return _say(str(error), error.exit_code)
    except PermissionError as error:
        return _say(
            f"{error.filename} may not be used: {error.strerror}; check its owner and mode.",
            Exit.BAD_CONFIG,
        )
    except OSError as error:
        if not is_disk_full(error):
            raise
        return _say(
            f"The disk or quota of {error.filename or 'the run folder'} is full; free space and "
            "start again, finished answers are kept.",
            Exit.BAD_CONFIG,
        )
    return Exit.DONE


def _log_to_stderr() -> None:
    # Our own logger only: engines bring handlers, and the root's would double their lines.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("shard_worker")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def _say(sentence: str, code: Exit) -> int:
    for line in sentence.splitlines():
        print(f"shard-worker: {line}", file=sys.stderr, flush=True)
    return code


def _describe(arguments: argparse.Namespace) -> None:
    from shard_worker.describe import describe

    print(json.dumps(describe(arguments.model, arguments.engine, arguments.adapter)))


def _run(arguments: argparse.Namespace) -> None:
    from shard_worker.layout import ShardLayout
    from shard_worker.run import run_shard
    from shard_worker.seats import take_seat
    from shard_worker.signals import StopRequest

    take_seat(os.environ, arguments.seat, arguments.seats)
    layout = ShardLayout(arguments.run_dir.resolve(), arguments.rank, arguments.world_size)
    run_shard(layout, arguments.attempt, StopRequest(), shared_job=arguments.seats > 1)


def _assist(_: argparse.Namespace) -> None:
    from shard_worker.assist import assist

    assist()


def _process_shard(arguments: argparse.Namespace) -> None:
    from shard_worker.by_hand import process_shard

    process_shard(arguments)


def _selfcheck(arguments: argparse.Namespace) -> None:
    from shard_worker.selfcheck import main as selfcheck

    selfcheck(arguments)


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "describe": _describe,
    "assist": _assist,
    "run": _run,
    "process-shard": _process_shard,
    "selfcheck": _selfcheck,
}
