"""``shard-worker run``: one attempt at one shard."""

import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shard_worker import model_files
from shard_worker.claim import check_still_ours, take_claim
from shard_worker.contract import Spec, load_spec
from shard_worker.engines import make_engine
from shard_worker.engines.base import Completion, Engine, RequestRefusedError
from shard_worker.errors import ConfigError, InterruptedShardError, WorkerError
from shard_worker.failures import LogTail, explain, is_disk_full
from shard_worker.fsio import remove_temporary_files
from shard_worker.layout import ShardLayout
from shard_worker.manifest import Attempt, Timings, is_finished, write_manifest, write_output
from shard_worker.offline import node_local_caches
from shard_worker.parts import PartWriter, read_parts
from shard_worker.progress import Progress
from shard_worker.rows import Answer, Request, read_requests
from shard_worker.signals import StopNowError, StopRequest
from shard_worker.slurm import Place
from shard_worker.versions import versions

log = logging.getLogger(__name__)


def run_shard(layout: ShardLayout, attempt: int, stop: StopRequest) -> None:
    """Answer every request of a shard that is not answered yet, then write output and manifest.

    A shard that is finished already is left alone.

    Args:
        layout: which shard of which run.
        attempt: number given by the orchestrator, from 1.
        stop: where a signal's wish to end is kept; its signals are taken here.

    Raises:
        WorkerError: with the exit code of the way in which it ended; finished answers are kept.
        OSError: the shared file system is full or gone.
    """
    stop.install()
    spec = load_spec(layout.spec)
    _check_ranks(layout, spec)
    if is_finished(layout, spec):
        log.info("%s is finished already; nothing to do", layout.name)
        return
    place = Place.from_env(os.environ)
    layout.parts.mkdir(parents=True, exist_ok=True)
    take_claim(layout, attempt, place)
    remove_temporary_files(layout.folder)
    remove_temporary_files(layout.parts)
    progress = Progress(
        layout.progress,
        rank=layout.rank,
        attempt=attempt,
        node=place.node,
        job_id=place.job_id,
        every=spec.progress_seconds,
    )
    with progress:
        try:
            _Shard(layout, spec, attempt, place, progress, stop).run()
        except BaseException as error:
            progress.phase("failed", str(error) or type(error).__name__)
            raise


def _check_ranks(layout: ShardLayout, spec: Spec) -> None:
    if spec.world_size != layout.world_size:
        raise ConfigError(
            f"--world-size is {layout.world_size}, but the spec has {spec.world_size} shards; "
            "submit an array of that size."
        )
    if not 0 <= layout.rank < layout.world_size:
        raise ConfigError(f"--rank is {layout.rank}; it must be from 0 to {layout.world_size - 1}.")


@dataclass
class _Shard:
    """The state of one attempt."""

    layout: ShardLayout
    spec: Spec
    attempt: int
    place: Place
    progress: Progress
    stop: StopRequest
    timings: Timings = field(default_factory=Timings)
    answers: dict[str, Answer] = field(default_factory=dict)
    engine: Engine | None = None

    def run(self) -> None:
        began, started_at = time.monotonic(), datetime.now(UTC)
        model_files.check_model_folder(self.spec.model_path)
        used_versions = versions(self.spec.engine.name)
        requests = read_requests(self.layout.inputs)
        missing = self._resume(requests)
        try:
            if missing:
                self._generate(missing)
            check_still_ours(self.layout, self.attempt)
            self.progress.phase("writing")
            ordered = [self.answers[request.request_id] for request in requests]
            write_output(self.layout, self.spec, ordered)
            self.timings.total_s = time.monotonic() - began
            gpu = self.engine.gpu if self.engine is not None else None
            attempt = Attempt(self.attempt, self.place, used_versions, gpu, started_at)
            write_manifest(self.layout, self.spec, ordered, attempt, self.timings)
            self.progress.phase("done")
        finally:
            if self.engine is not None:  # last, since ending an engine may take seconds
                self.engine.close()
        log.info("%s is done after %.1f s", self.layout.name, self.timings.total_s)

    def _resume(self, requests: Sequence[Request]) -> list[Request]:
        wanted = {request.request_id for request in requests}
        parts = read_parts(self.layout.parts, self.spec.fingerprint)
        self.answers = {key: answer for key, answer in parts.items() if key in wanted}
        kept = self.answers.values()
        self.progress.resume(
            total=len(requests),
            done=len(kept),
            errors=sum(answer.error is not None for answer in kept),
            output_tokens=sum(answer.output_tokens for answer in kept),
        )
        missing = [request for request in requests if request.request_id not in self.answers]
        log.info(
            "%s, attempt %d on %s: %d requests, %d answered before, %d to do",
            self.layout.name,
            self.attempt,
            self.place.node,
            len(requests),
            len(kept),
            len(missing),
        )
        return missing

    def _generate(self, missing: Sequence[Request]) -> None:
        node_local_caches(os.environ, self.layout.rank)
        tail = LogTail(self.layout.log(self.attempt))
        self.progress.phase("loading")
        try:
            self.stop.urgent = True
            if self.stop.name is not None:
                raise self._interrupted()
            engine = self._load(missing)
            self.stop.urgent = False
            self.stop.install()  # again: engines take signals too
            self.progress.phase("generating")
            self._answer_all(engine, missing)
        except StopNowError:
            raise self._interrupted() from None
        except Exception as error:
            if isinstance(error, WorkerError) or is_disk_full(error):
                raise
            if self.stop.name is not None:
                # Slurm signals the engine's own processes too, and their death surfaces here.
                raise self._interrupted() from error
            traceback.print_exc()
            raise explain(error, tail.read()) from error
        finally:
            self.stop.urgent = False

    def _load(self, missing: Sequence[Request]) -> Engine:
        began = time.monotonic()
        engine = self.engine = make_engine(self.spec)
        imported = time.monotonic()
        self.timings.import_s = imported - began
        engine.load(missing)
        self.timings.load_s = time.monotonic() - imported
        log.info("engine ready after %.1f s", time.monotonic() - began)
        return engine

    def _answer_all(self, engine: Engine, missing: Sequence[Request]) -> None:
        began = time.monotonic()
        parts = PartWriter(
            self.layout.parts,
            self.spec.fingerprint,
            self.attempt,
            rows=self.spec.flush_rows,
            seconds=self.spec.flush_seconds,
        )
        waiting = deque(missing)
        running: dict[str, tuple[Request, float]] = {}
        try:
            while waiting or running:
                if self.stop.name is not None:
                    raise self._interrupted()
                while waiting and len(running) < engine.capacity:
                    self._add(engine, waiting.popleft(), running, parts)
                for completion in engine.step():
                    request, added = running.pop(completion.request_id)
                    self._keep(request, completion, time.monotonic() - added, parts)
                if parts.flush_if_due():
                    check_still_ours(self.layout, self.attempt)
        finally:
            parts.flush()
            self.timings.generate_s = time.monotonic() - began

    def _add(
        self,
        engine: Engine,
        request: Request,
        running: dict[str, tuple[Request, float]],
        parts: PartWriter,
    ) -> None:
        try:
            engine.add(request)
        except RequestRefusedError as error:
            refused = Completion(
                request.request_id, None, error.prompt_tokens, 0, "error", str(error)
            )
            self._keep(request, refused, 0.0, parts)
        else:
            running[request.request_id] = (request, time.monotonic())

    def _keep(
        self, request: Request, completion: Completion, seconds: float, parts: PartWriter
    ) -> None:
        answer = Answer(
            request_id=request.request_id,
            benchmark=request.benchmark,
            problem_id=request.problem_id,
            repeat_idx=request.repeat_idx,
            text=completion.text,
            output_tokens=completion.output_tokens,
            prompt_tokens=completion.prompt_tokens,
            finish_reason=completion.finish_reason,
            seconds=seconds,
            finished_at=datetime.now(UTC),
            error=completion.error,
            rank=self.layout.rank,
            attempt=self.attempt,
        )
        parts.add(answer)
        self.answers[answer.request_id] = answer
        self.progress.count(output_tokens=answer.output_tokens, error=answer.error is not None)

    def _interrupted(self) -> InterruptedShardError:
        return InterruptedShardError(
            f"interrupted by {self.stop.name}; {len(self.answers)} answers are kept, a new attempt "
            "makes the rest"
        )
