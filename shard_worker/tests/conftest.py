import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent / "src"), str(TESTS)]
# pytest names this module after its folders, shard_worker.tests.conftest, and registers an empty
# package shard_worker for it, which would hide the one under test.
if getattr(sys.modules.get("shard_worker"), "__file__", None) is None:
    sys.modules.pop("shard_worker", None)

from worker_testing import KILL_AFTER, ROOT, Run, make_requests, make_spec  # noqa: E402

from shard_worker import cli  # noqa: E402
from shard_worker.rows import Request  # noqa: E402
from shard_worker.signals import STOPPING  # noqa: E402

# How long an example takes says nothing on a machine that does other things beside.
settings.register_profile("nightshard", deadline=None)
settings.load_profile("nightshard")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model, which is all that the echo engine asks for."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 128}')
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    folder = tmp_path / "run"
    folder.mkdir()
    made = Run(folder)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


@pytest.fixture
def echo_run(run: Run, model: Path) -> Callable[..., list[Request]]:
    """Write an echo run: ``echo_run(20, seconds_per_request=0.1)`` returns its requests."""

    def write(count: int, **options: Any) -> list[Request]:
        requests = make_requests(count)
        run.write(make_spec(model, engine={"options": options}), requests)
        return requests

    return write


@pytest.fixture
def restored_process() -> Iterator[None]:
    """Undo what the command line does to its own process: environment and signals."""
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    yield
    os.environ.clear()
    os.environ.update(environment)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def here(run: Run, restored_process: None) -> Callable[..., int]:
    """Run the shard in this process: ``here(attempt=1)`` returns the exit code."""
    return lambda attempt=1: cli.main(run.arguments(attempt)[2:])


@pytest.fixture(scope="session")
def worker_python() -> str:
    """Python of the environment that has vLLM."""
    default = ROOT / ".nightshard" / "worker-env" / "bin" / "python"
    found = Path(os.environ.get("NIGHTSHARD_WORKER_PYTHON", default))
    if not found.exists():
        pytest.fail(f"{found} does not exist; `make worker-env` makes it.")
    return str(found)


@pytest.fixture(scope="session")
def tiny_model(worker_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    script = Path(__file__).with_name("tiny_model.py")
    subprocess.run([worker_python, str(script), str(folder)], check=True, timeout=KILL_AFTER)
    return folder
