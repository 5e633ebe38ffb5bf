"""``shard-worker run``: one attempt at one shard."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shard_worker import model_files
from shard_worker.board import Board
from shard_worker.claim import check_still_ours, check_wanted, take_claim
from shard_worker.contract import Spec, load_spec
from shard_worker.errors import ConfigError
from shard_worker.feed import Feed, OwnRequests, SharedRequests
from shard_worker.fsio import remove_temporary_files
from shard_worker.generate import Generation
from shard_worker.gpu import find_gpus
from shard_worker.layout import ShardLayout, sizes
from shard_worker.manifest import Attempt, Timings, is_finished, write_manifest, write_output
from shard_worker.offline import node_local_caches
from shard_worker.parts import read_parts
from shard_worker.progress import Progress
from shard_worker.relief import relieve
from shard_worker.rows import Answer, Request, read_requests
from shard_worker.signals import StopRequest
from shard_worker.slurm import Place
from shard_worker.telemetry import Telemetry
from shard_worker.versions import versions

log = logging.getLogger(__name__)


def run_shard(
    layout: ShardLayout, attempt: int, stop: StopRequest, *, shared_job: bool = False
) -> None:
    """Answer every request of a shard that is not answered yet, then write output and manifest.

    Where the spec says ``steal``, a shard with room also answers blocks of other shards' requests
    that nobody has begun, and its output holds the requests of the blocks that it claimed.

    A shard that is finished already is left alone.

    Args:
        layout: which shard of which run.
        attempt: number given by the orchestrator, from 1.
        stop: where a signal's wish to end is kept; its signals are taken here.
        shared_job: other shards run in the same job, which is submitted again for all where only
            some need it.

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
    left = place.seconds_left(time.time(), spec.stop_before_s)
    stop.deadline = None if left is None else time.monotonic() + left
    layout.parts.mkdir(parents=True, exist_ok=True)
    if shared_job:
        check_wanted(layout, attempt)
    take_claim(layout, attempt, place)
    remove_temporary_files(layout.folder)
    remove_temporary_files(layout.parts)
    telemetry = Telemetry(gpus=find_gpus())
    progress = Progress(
        layout.progress,
        rank=layout.rank,
        attempt=attempt,
        node=place.node,
        job_id=place.job_id,
        every=spec.progress_seconds,
        telemetry=telemetry,
    )
    with progress:
        try:
            _Shard(layout, spec, attempt, place, progress, stop, telemetry).run()
        except BaseException as error:
            progress.phase("failed", str(error) or type(error).__name__)
            raise
        finally:
            telemetry.close()


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
    telemetry: Telemetry
    timings: Timings = field(default_factory=Timings)

    def run(self) -> None:
        began, started_at = time.monotonic(), datetime.now(UTC)
        if self.spec.engine.name != "openai":  # its model is elsewhere
            model_files.check_model_folder(self.spec.model_path)
        used_versions = versions(self.spec.engine.name)
        requests = read_requests(self.layout.inputs)
        answers = self._earlier_answers()
        feed = self._feed(requests, answers)
        self._tell(feed, answers)
        generation = Generation(
            self.layout,
            self.spec,
            self.attempt,
            feed,
            self.progress,
            self.stop,
            answers,
            self.timings,
            self.telemetry,
        )
        try:
            if feed.anything():
                node_local_caches(os.environ, self.layout.rank)
                generation.run()
            check_still_ours(self.layout, self.attempt)
            self.progress.phase("writing")
            ordered = [answers[request.request_id] for request in feed.owed()]
            self.progress.expect(len(ordered))
            write_output(self.layout, self.spec, ordered)
            self.timings.total_s = time.monotonic() - began
            gpu = generation.engine.gpu if generation.engine is not None else None
            attempt = Attempt(
                self.attempt,
                self.place,
                used_versions,
                gpu,
                started_at,
                blocks=feed.blocks(),
                telemetry=self.telemetry.summary(),
            )
            write_manifest(self.layout, self.spec, ordered, attempt, self.timings)
            self.progress.phase("done")
            relieve(self.layout, self.spec, attempt, feed)
        finally:
            if generation.engine is not None:  # last, since ending an engine may take seconds
                generation.engine.close()
        log.info("%s is done after %.1f s", self.layout.name, self.timings.total_s)

    def _earlier_answers(self) -> dict[str, Answer]:
        """Read what earlier attempts of this shard answered.

        Where the run was cut into another number of shards before, their parts count as well.
        """
        folders = [self.layout.parts]
        if sizes(self.layout) != {self.layout.world_size}:
            others = self.layout.run_dir.glob("shards/*/parts")
            folders += sorted(folder for folder in others if folder != self.layout.parts)
        found: dict[str, Answer] = {}
        for folder in folders:
            found = read_parts(folder, self.spec.fingerprint) | found
        return found

    def _feed(self, requests: Sequence[Request], answers: Mapping[str, Answer]) -> Feed:
        if not self.spec.steal:
            return OwnRequests(requests, answers.keys())
        board = Board(self.layout, self.attempt, self.place.restarts)
        mine = board.open()
        return SharedRequests(self.layout, board, mine, requests, answers.keys())

    def _tell(self, feed: Feed, answers: Mapping[str, Answer]) -> None:
        known = feed.known()
        kept = [answers[one.request_id] for one in known if one.request_id in answers]
        self.progress.resume(
            total=feed.expected(),
            done=len(kept),
            errors=sum(answer.error is not None for answer in kept),
            output_tokens=sum(answer.output_tokens for answer in kept),
        )
        log.info(
            "%s, attempt %d on %s: %d requests, %d answered before, %d to do",
            self.layout.name,
            self.attempt,
            self.place.node,
            len(known),
            len(kept),
            len(known) - len(kept),
        )
