"""The loop between what is to be run and an engine that runs it."""

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shard_worker.claim import check_still_ours
from shard_worker.contract import Spec
from shard_worker.engines import make_engine
from shard_worker.engines.base import Completion, Engine, RequestRefusedError
from shard_worker.errors import EngineCrashError, InterruptedShardError, WorkerError
from shard_worker.failures import LogTail, explain, is_disk_full
from shard_worker.feed import Feed
from shard_worker.isolation import Suspects
from shard_worker.layout import ShardLayout
from shard_worker.manifest import Timings
from shard_worker.parts import PartWriter
from shard_worker.progress import Progress
from shard_worker.rows import Answer, Request
from shard_worker.signals import StopNowError, StopRequest
from shard_worker.telemetry import Telemetry

log = logging.getLogger(__name__)

MOST_RESTARTS = 24
"""Of the engine in one attempt: enough to find two guilty requests among a thousand."""

BROKEN_AFTER = 3
"""Requests that each crash the engine alone before it has answered any: it is the engine."""

CHECK_S = 15.0
"""At least so often a look is taken whether the attempt still counts: a shard that shares its job
is cancelled by a file alone."""


class _EngineDiedError(Exception):
    """The engine raised while it worked; the cause is chained."""


@dataclass
class Generation:
    """Answers what a feed hands out, and starts the engine again where a request crashes it.

    Attributes:
        layout: the shard.
        spec: of the run.
        attempt: of this process.
        feed: where requests come from.
        progress: is told of each answer.
        stop: is asked between two steps.
        answers: by request id; those of earlier attempts are there already.
        timings: seconds of this attempt so far.
        telemetry: is told of each step.
        engine: the engine that runs now; the caller closes it.
    """

    layout: ShardLayout
    spec: Spec
    attempt: int
    feed: Feed
    progress: Progress
    stop: StopRequest
    answers: dict[str, Answer]
    timings: Timings
    telemetry: Telemetry
    engine: Engine | None = None
    _parts: PartWriter = field(init=False)
    _tail: LogTail = field(init=False)
    _running: dict[str, tuple[Request, float]] = field(default_factory=dict)
    _waiting: deque[Request] = field(default_factory=deque)
    _suspects: Suspects[Request] = field(default_factory=Suspects)
    _group: deque[Request] = field(default_factory=deque)
    _restarts: int = 0
    _proven: bool = False
    _accused: list[tuple[Request, Completion]] = field(default_factory=list)
    _checked_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._tail = LogTail(self.layout.log(self.attempt))
        self._parts = PartWriter(
            self.layout.parts,
            self.spec.fingerprint,
            self.attempt,
            rows=self.spec.flush_rows,
            seconds=self.spec.flush_seconds,
        )

    def run(self) -> None:
        """Answer everything.

        Raises:
            InterruptedShardError: a signal or the time limit; finished answers are kept.
            ClaimHeldError: another attempt has begun.
            WorkerError: the engine cannot be used; see :func:`shard_worker.failures.explain`.
            OSError: the shared file system is full or gone.
        """
        try:
            self._guard(self._load)
            while not self._guard(self._work):
                self._guard(self._load)
            self._condemn()
        finally:
            self._parts.flush()

    def _guard(self, act: Callable[[], bool]) -> bool:
        """Do something with the engine, and turn what it raises into an end that is understood."""
        try:
            return act()
        except StopNowError:
            raise self._interrupted() from None
        except Exception as error:
            if isinstance(error, WorkerError) or is_disk_full(error):
                raise
            if isinstance(error, FileNotFoundError):
                # A later attempt tidies up the file that this one was just writing.
                check_still_ours(self.layout, self.attempt)
            if self.stop.wish() is not None:
                # Slurm signals the engine's own processes too, and their death surfaces here.
                raise self._interrupted() from error
            traceback.print_exc()
            raise explain(error, self._tail.read()) from error
        finally:
            self.stop.urgent = False

    def _load(self) -> bool:
        self.progress.phase("loading")
        self.stop.urgent = True
        if self.stop.wish() is not None:
            raise self._interrupted()
        began = time.monotonic()
        engine = self.engine = make_engine(self.spec)
        imported = time.monotonic()
        self.timings.import_s += imported - began
        known = self.feed.known()
        engine.load([one for one in known if one.request_id not in self.answers])
        self.timings.load_s += time.monotonic() - imported
        self.timings.compile_s += engine.compile_s
        self.stop.urgent = False
        self.stop.install()  # again: engines take signals too
        log.info("engine ready after %.1f s", time.monotonic() - began)
        self.telemetry.generating()
        self.progress.phase("generating")
        return True

    def _work(self) -> bool:
        """Run until nothing is left; False where the engine died and must be started again."""
        began = time.monotonic()
        try:
            while self._step():
                pass
        except _EngineDiedError as died:
            self._after_crash(died)
            return False
        finally:
            self.timings.generate_s += time.monotonic() - began
        return True

    def _step(self) -> bool:
        """Add what there is room for and run one step; False if nothing is left."""
        if self.stop.wish() is not None:
            raise self._interrupted()
        engine = self._engine()
        self._fill(engine)
        if not self._running:
            if not self._suspects:
                return False
            self._suspects.survived()
            self._next_group()
            return True
        held = len(self._running)
        try:
            completions = engine.step()
        except WorkerError:
            raise
        except Exception as error:
            raise _EngineDiedError from error
        for completion in completions:
            request, added = self._running.pop(completion.request_id)
            self._proven = self._proven or completion.error is None
            self._keep(request, completion, time.monotonic() - added)
        if self._proven:
            self._condemn()
        self.telemetry.step(held, engine.capacity)
        now = time.monotonic()
        if self._parts.flush_if_due() or now >= self._checked_at + CHECK_S:
            self._checked_at = now
            check_still_ours(self.layout, self.attempt)
        return True

    def _fill(self, engine: Engine) -> None:
        # No more than its own share at once: a shard that starts early would take everything.
        limit = min(engine.capacity, max(1, self.feed.share))
        while (room := limit - len(self._running)) > 0:
            request = self._next(engine, room)
            if request is None:
                return
            try:
                engine.add(request)
            except RequestRefusedError as error:
                refused = Completion(
                    request.request_id, None, error.prompt_tokens, 0, "error", str(error)
                )
                self._keep(request, refused, 0.0)
            except Exception as error:
                self._running[request.request_id] = (request, time.monotonic())
                raise _EngineDiedError from error
            else:
                self._running[request.request_id] = (request, time.monotonic())

    def _next(self, engine: Engine, room: int) -> Request | None:
        if self._suspects:
            return self._group.popleft() if self._group else None
        if not self._waiting:
            held = sum(request.cost for request, _ in self._running.values())
            full = engine.token_room is not None and held >= engine.token_room
            self._waiting.extend(self.feed.more(room, 0 if full else room, engine.fits))
            self.progress.expect(self.feed.expected())
        return self._waiting.popleft() if self._waiting else None

    def _next_group(self) -> None:
        self._group = deque(self._suspects.next_group() if self._suspects else ())

    def _after_crash(self, died: _EngineDiedError) -> None:
        """Decide what is tried alone, and close the dead engine.

        Raises:
            Exception: the engine's own, where starting it again would not help.
        """
        cause = died.__cause__
        if not isinstance(cause, Exception):
            raise died
        end = explain(cause, self._tail.read())
        unfinished = [*(request for request, _ in self._running.values()), *self._group]
        if (
            self.stop.wish() is not None
            or not isinstance(end, EngineCrashError)
            or not unfinished
            or self._restarts >= MOST_RESTARTS
        ):
            raise cause
        self._restarts += 1
        self.telemetry.restart()
        traceback.print_exception(cause)
        log.warning(
            "the engine crashed while it ran %d requests; it is started again (%d of at most %d)",
            len(unfinished),
            self._restarts,
            MOST_RESTARTS,
        )
        for request in self._suspects.crashed(unfinished, proven=self._proven):
            sentence = f"the engine crashes on this request: {' '.join(str(cause).split())}"
            guilty = Completion(request.request_id, None, 0, 0, "error", sentence)
            self._accused.append((request, guilty))
        if not self._proven and len(self._accused) >= BROKEN_AFTER:
            raise cause
        self._next_group()
        self._running.clear()
        self._parts.flush()
        check_still_ours(self.layout, self.attempt)
        try:
            self._engine().close()
        except Exception:
            log.warning("the dead engine could not be closed", exc_info=True)

    def _condemn(self) -> None:
        """Keep the errors of the requests that crash an engine which answers others."""
        for request, completion in self._accused:
            self._keep(request, completion, 0.0)
        self._accused.clear()

    def _keep(self, request: Request, completion: Completion, seconds: float) -> None:
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
            token_logprobs=completion.token_logprobs,
        )
        self._parts.add(answer)
        self.answers[answer.request_id] = answer
        self.telemetry.answer(answer.prompt_tokens, answer.output_tokens)
        self.progress.count(output_tokens=answer.output_tokens, error=answer.error is not None)

    def _engine(self) -> Engine:
        if self.engine is None:
            raise RuntimeError("the engine is not loaded")
        return self.engine

    def _interrupted(self) -> InterruptedShardError:
        return InterruptedShardError(
            f"interrupted by {self.stop.name}; {len(self.answers)} answers are kept, a new attempt "
            "makes the rest"
        )
