"""A worker that keeps the contract of files, without an engine: answers appear as time passes."""

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from support.simulation.queue import Element, Queue
from support.simulation.world import NODES, World

from nightshard.clusters.layout import RunLayout

FINGERPRINT = "f" * 32
_CLAIM = re.compile(r"claim-(\d+)(?:-restart-\d+)?")

OUT_OF_MEMORY, CRASHED, BAD_CONFIG, INTERRUPTED, CLAIM_HELD = 3, 4, 2, 75, 76
FATES = ("out_of_memory", "kernel_out_of_memory", "crash", "killed", "bad_config", "damage", "torn",
         "deaf")  # fmt: skip


def request_id(rank: int, number: int) -> str:
    """Name a request."""
    return f"{rank:03d}-{number:03d}"


@dataclass
class RunTruth:
    """What is true of a run, whatever anybody sees.

    Attributes:
        active: processes past their claim, by rank.
        outcomes: how each attempt's process ended, by (rank, attempt).
    """

    layout: RunLayout
    rows: tuple[int, ...]
    active: dict[int, list["Worker"]] = field(default_factory=dict)
    claims: dict[tuple[int, int, int], list[str]] = field(default_factory=dict)


class Worker:
    """One run of an element's batch script."""

    def __init__(self, world: World, queue: Queue, truth: RunTruth, element: Element) -> None:
        self.world, self.queue, self.truth, self.element = world, queue, truth, element
        body = world.disk.truth(element.script)
        assert body is not None
        text = body.decode()
        self.attempt = int(_found(r"--attempt (\d+)", text))
        first = re.search(r"first=\$\(\(SLURM_ARRAY_TASK_ID(?: \+ (\d+))?\)\)", text)
        assert first is not None
        assert element.index is not None
        self.rank = element.index + int(first[1] or 0)
        self.restart = element.restarts
        self.node = str(element.node)
        self.job_id = str(element.raw_id)
        self.folder = str(truth.layout.shard(self.rank))
        self.fate = self._fate()
        self.answers: dict[str, str] = {}
        self._signalled = False
        self.started = world.now
        self._task = world.spawn(self._batch())

    @property
    def alive(self) -> bool:
        """Whether its processes are there."""
        return not self._task.done()

    @property
    def orphan(self) -> bool:
        """Whether Slurm has forgotten it or wants it to end."""
        return self.element.worker is not self or self.element.scancelled or self.element.ending

    def signal(self) -> None:
        """Ask it to end; an engine that loads or is deaf does not hear it."""
        if self._signalled or self.fate == "deaf":
            return
        self._signalled = True
        self.world.loop.call_later(self.world.rng.uniform(0.1, 3), self._task.cancel)

    def kill(self) -> None:
        """End it without a word."""
        self._signalled = False
        self._task.cancel()

    def _fate(self) -> str:
        rng, world = self.world.rng, self.world
        # An unlucky attempt is a fault, so there is none in the calm.
        if world.calm or rng.random() >= world.scenario.fates:
            return "good"
        return rng.choice(FATES)

    async def _batch(self) -> None:
        me = f"worker {self.rank} a{self.attempt} of {self.element.id}"
        try:
            code = await self._run()
        except asyncio.CancelledError:
            if not self._signalled:
                self.world.tell(f"{me} is killed")
                self._gone()
                return
            code = INTERRUPTED
        self._gone()
        self.world.tell(f"{me} exits with {code}")
        record = json.dumps({"exit_code": code, "job_id": self.job_id})
        self._write(f"exit-a{self.attempt}", (record + "\n").encode())
        self.queue.exited(self.element, self, code)

    def _gone(self) -> None:
        active = self.truth.active.get(self.rank, [])
        if self in active:
            active.remove(self)

    async def _run(self) -> int:
        world = self.world
        await asyncio.sleep(world.rng.uniform(0.5, 5))
        if self._is_finished():
            return 0
        if self.fate == "bad_config":
            world.inject("bad configuration", f"shard {self.rank}")
            return BAD_CONFIG
        if not self._still_ours() or not self._claim():
            return CLAIM_HELD
        return await self._work()

    async def _work(self) -> int:
        world, rng = self.world, self.world.rng
        self._resume()
        self._progress("loading")
        await asyncio.sleep(rng.uniform(2, 30))
        missing = [one for one in self._wanted() if one not in self.answers]
        unlucky_at = rng.randint(0, len(missing))
        for number, request in enumerate(missing):
            if number == unlucky_at and (end := self._unlucky()) is not None:
                return end
            await asyncio.sleep(rng.uniform(0.5, 1.5) * world.scenario.row_s)
            self._keep(request)
            self._progress("generating")
            if not self._still_ours():
                return CLAIM_HELD
        end = self._unlucky() if unlucky_at == len(missing) else None
        if end is None and not self._still_ours():
            end = CLAIM_HELD
        if end is not None:
            return end
        self._progress("writing")
        await self._finish()
        self._progress("done")
        return 0

    def _unlucky(self) -> int | None:
        queue, world, where = self.queue, self.world, f"shard {self.rank}"
        if self.fate == "out_of_memory":
            world.inject("out of memory (worker)", where)
            return OUT_OF_MEMORY
        if self.fate == "crash":
            world.inject("engine crashed", where)
            return CRASHED
        if self.fate == "kernel_out_of_memory" and self.element.worker is self:
            world.inject("out of memory (kernel)", where)
            world.loop.call_soon(queue.out_of_memory, self.element)
        if self.fate == "killed" and self.element.worker is self:
            world.inject("killed by a signal", where)
            world.loop.call_soon(queue.kill, self.element)
        return None

    def _wanted(self) -> list[str]:
        return [request_id(self.rank, one) for one in range(self.truth.rows[self.rank])]

    def _is_finished(self) -> bool:
        layout, size = self.truth.layout, len(self.truth.rows)
        text = self.world.disk.read(str(layout.manifest(self.rank, size)), NODES)
        output = self.world.disk.read(str(layout.output_file(self.rank, size)), NODES)
        if text is None or output is None:
            return False
        manifest = json.loads(text)
        return bool(
            manifest["fingerprint"] == FINGERPRINT
            and manifest["sha256"] == hashlib.sha256(output).hexdigest()
        )

    def _still_ours(self) -> bool:
        for name in self.world.disk.names(self.folder, NODES):
            match = _CLAIM.fullmatch(name)
            if match and int(match[1]) > self.attempt:
                return False
            if name == f"attempt-{self.attempt}.json":
                return False
        return True

    def _claim(self) -> bool:
        disk, path = self.world.disk, f"{self.folder}/claim-{self.attempt}"
        data = json.dumps({"job_id": self.job_id, "restarts": self.restart}).encode()
        if not disk.create(path, data, NODES):
            holder = json.loads(disk.truth(path) or b"{}")
            again = holder["job_id"] == self.job_id and self.restart > holder["restarts"]
            if not again or not disk.create(f"{path}-restart-{self.restart}", data, NODES):
                self.world.tell(f"worker {self.rank} a{self.attempt}: the claim is held")
                self.world.kinds["claim held"] += 1
                return False
        key = (self.rank, self.attempt, self.restart)
        self.truth.claims.setdefault(key, []).append(self.job_id)
        if len(self.truth.claims[key]) > 1:
            self.world.violation(f"two workers past the claim in attempt {key}")
        others = self.truth.active.setdefault(self.rank, [])
        for other in others:
            # After a double that nobody knew of, a later attempt may take over from a live one.
            if not other.orphan and not self.world.scenario.faults.too_late:
                self.world.violation(
                    f"attempt {self.attempt} of shard {self.rank} began while attempt "
                    f"{other.attempt} ({other.element.id}) is at work"
                )
        others.append(self)
        return True

    def _resume(self) -> None:
        disk, parts = self.world.disk, f"{self.folder}/parts"
        for name in disk.names(parts, NODES):
            data = disk.read(f"{parts}/{name}", NODES) or b""
            if hashlib.sha256(data).hexdigest()[:16] == name.rpartition("-")[2]:
                row = json.loads(data)
                self.answers.setdefault(row["request_id"], row["text"])

    def _keep(self, request: str) -> None:
        text = f"{request} by a{self.attempt} on {self.element.id}"
        data = json.dumps({"request_id": request, "text": text}).encode()
        self.answers[request] = text
        parts = f"{self.folder}/parts"
        number = len(self.world.disk.names(parts, NODES))
        name = f"part-{number:06d}-a{self.attempt}-{hashlib.sha256(data).hexdigest()[:16]}"
        if self.fate == "torn":
            self.world.inject("torn part file", f"shard {self.rank}")
            data = data[: len(data) // 2]
        self.world.disk.write(f"{parts}/{name}", data, NODES)

    async def _finish(self) -> None:
        layout, size = self.truth.layout, len(self.truth.rows)
        rows = [{"request_id": one, "text": self.answers[one]} for one in self._wanted()]
        output = json.dumps(rows).encode()
        digest = hashlib.sha256(output).hexdigest()
        if self.fate == "damage":
            self.world.inject("wrong checksum", f"shard {self.rank}")
            self.world.disk.damage(str(layout.output_file(self.rank, size)), output[:-2])
        else:
            self.world.disk.write(str(layout.output_file(self.rank, size)), output, NODES)
        await asyncio.sleep(self.world.rng.uniform(0, 2))
        manifest = manifest_of(layout, self.rank, size, len(rows), digest)
        manifest |= {"attempt": self.attempt, "node": self.node}
        manifest["slurm"]["job_id"] = self.job_id
        content = json.dumps(manifest).encode()
        self.world.disk.write(str(layout.manifest(self.rank, size)), content, NODES)

    def _progress(self, phase: str) -> None:
        value = {
            "contract_version": 2,
            "rank": self.rank,
            "attempt": self.attempt,
            "phase": phase,
            "done": len(self.answers),
            "total": self.truth.rows[self.rank],
            "errors": 0,
            "output_tokens": 20 * len(self.answers),
            "tokens_per_s": 12.5,
            "node": self.node,
            "job_id": self.job_id,
            "updated_at": self.world.cluster_time(self.world.now),
            "message": None,
        }
        self._write("progress.json", json.dumps(value).encode())

    def _write(self, name: str, data: bytes) -> None:
        self.world.disk.write(f"{self.folder}/{name}", data, NODES)


def manifest_of(layout: RunLayout, rank: int, size: int, rows: int, sha256: str) -> dict[str, Any]:
    """Return a manifest of the contract."""
    return {
        "contract_version": 2,
        "run_key": layout.run_key,
        "fingerprint": FINGERPRINT,
        "rank": rank,
        "world_size": size,
        "attempt": 1,
        "rows": rows,
        "errors": 0,
        "output_file": layout.output_file(rank, size).name,
        "sha256": sha256,
        "prompt_tokens": 100,
        "output_tokens": 200,
        "timings": {"import_s": 1.0, "load_s": 2.0, "generate_s": 3.0, "total_s": 6.5},
        "gpu": None,
        "node": "node1",
        "slurm": {"job_id": "1", "array_job_id": "1", "array_task_id": "0", "cluster": "sim"},
        "versions": {"sim": "1"},
        "started_at": "2026-11-24T22:00:00+00:00",
        "finished_at": "2026-11-24T22:00:06+00:00",
    }


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, f"the batch script has no {pattern}"
    return match[1]
