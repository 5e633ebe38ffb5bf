"""What has to be true at the end, whatever was broken on the way."""

import asyncio
import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from datetime import datetime
from math import inf
from pathlib import Path

from support.simulation.pilot import Pilot, ShardTask
from support.simulation.queue import Element, Queue, parse_directives
from support.simulation.worker import BAD_CONFIG, CLAIM_HELD, CRASHED, INTERRUPTED, request_id
from support.simulation.world import NIGHT, World

from nightshard.clusters.attempts import AttemptRecord
from nightshard.clusters.collecting import collect_run, read_attempts
from nightshard.clusters.patience import patiently
from nightshard.clusters.slurm import state_of

BY_HAND = "a person"
FOREIGN = "ns-other-run-a1"
SETTLED_S = 120.0
KILLED = 128
PASSING = {INTERRUPTED, CLAIM_HELD}


async def check_end(world: World, queue: Queue, pilot: Pilot, folder: Path) -> None:
    """Note every violation in the world."""
    await asyncio.sleep(SETTLED_S)
    _no_orphans(world, queue, pilot)
    _no_doubles(world, queue, pilot)
    _nobody_else_cancelled(world, queue, pilot)
    for task in pilot.tasks:
        records = _records(world, pilot, task)
        _records_are_true(world, queue, task, records)
        _attempts_are_few(world, task, records)
        _failed_nodes_are_left_out(world, queue, task, records)
        _end_is_just(world, queue, task, records)
        if task.state == "success":
            _rows_are_whole(world, pilot, task)
    _polls_are_few(world, pilot)
    await _following_again_changes_nothing(world, queue, pilot)
    if all(task.state == "success" for task in pilot.tasks):
        await _merge_is_whole(world, pilot, folder)


def rank_of(world: World, one: Element) -> tuple[int, int]:
    """Return rank and attempt of an element."""
    text = (world.disk.truth(one.script) or b"").decode()
    first = re.search(r"SLURM_ARRAY_TASK_ID \+ (\d+)", text)
    attempt = re.search(r"--attempt (\d+)", text)
    assert attempt is not None
    return (one.index or 0) + (int(first[1]) if first else 0), int(attempt[1])


def _no_orphans(world: World, queue: Queue, pilot: Pilot) -> None:
    for one in queue.elements:
        if not (one.ours and one.live):
            continue
        rank, attempt = rank_of(world, one)
        task = pilot.tasks[rank]
        if task.undelivered:
            world.tell(f"{one.id} goes on: its cancel could not be delivered")
        elif world.disk.truth(str(pilot.layout.attempt_record(rank, attempt))) is not None:
            # It may not even begin, since its attempt was given up.
            world.tell(f"{one.id} will end by itself")
            world.kinds["given-up element ends by itself"] += 1
        else:
            world.violation(f"{one.id} of shard {rank} is an orphan in {one.word}")


def _no_doubles(world: World, queue: Queue, pilot: Pilot) -> None:
    by_name: dict[str, dict[int, list[Element]]] = defaultdict(lambda: defaultdict(list))
    for one in queue.elements:
        if one.ours and one.index is not None:
            by_name[one.name][one.array_id].append(one)
    for name, arrays in by_name.items():
        if len(arrays) > 1:
            world.tell(f"{name} was accepted as {sorted(arrays)}")
            world.kinds["array accepted twice"] += 1
            alive = [i for i, elements in arrays.items() if any(e.live for e in elements)]
            if len(alive) > 1:
                world.violation(f"{name} is alive twice: {alive}")
    if world.scenario.faults.too_late or any(task.by_person for task in pilot.tasks):
        return  # a cancelled follower may have had a submission under way as well
    for number, one in enumerate(queue.submissions):
        # A process that died may have had a submission under way that nobody can know of.
        before = queue.submissions[:number]
        same = {
            other.array_id for other in before if (other.name, other.who) == (one.name, one.who)
        }
        if one.name != FOREIGN and same and (same & one.known or one.told):
            world.violation(f"{one.who} submitted {one.name} as {same} and as {one.array_id}")


def _nobody_else_cancelled(world: World, queue: Queue, pilot: Pilot) -> None:
    names = Counter(one.name for one in queue.submissions)
    for one in queue.elements:
        if not one.cancelled_by or one.cancelled_by == BY_HAND:
            continue
        if not one.ours:
            world.violation(f"{one.cancelled_by} cancelled a job of somebody else, {one.id}")
            continue
        rank, attempt = rank_of(world, one)
        asked = pilot.tasks[rank].by_person != ""
        record = AttemptRecord.read(
            world.disk.truth(str(pilot.layout.attempt_record(rank, attempt)))
        )
        given_up = record is not None and record.state in {"unknown", "time_limit"}
        if not (asked or given_up or names[one.name] > 1):
            world.violation(f"{one.cancelled_by} cancelled {one.id} of shard {rank} unasked")


def _records(world: World, pilot: Pilot, task: ShardTask) -> list[AttemptRecord]:
    found = []
    for attempt in range(1, 30):
        data = world.disk.truth(str(pilot.layout.attempt_record(task.rank, attempt)))
        if data is None:
            break
        record = AttemptRecord.read(data)
        if record is None and task.undelivered:
            break  # cut while it was written; the worker takes it for a record all the same
        if record is None:
            world.violation(f"record {attempt} of shard {task.rank} cannot be read: {data!r}")
            break
        found.append(record)
    return found


def _records_are_true(
    world: World, queue: Queue, task: ShardTask, records: list[AttemptRecord]
) -> None:
    site = world.scenario.site
    # What squeue forgets within a long pause, only the accounts know.
    forgetful = site.accounts != "on" or site.asked_accounts == "no"
    for number, record in enumerate(records, 1):
        where = f"record {number} of shard {task.rank}"
        if (record.attempt, record.rank) != (number, task.rank):
            world.violation(f"{where} is of attempt {record.attempt}, rank {record.rank}")
        found = [one for one in queue.elements if one.ours and one.id == record.job_id
                 and one.name == record.job_name]  # fmt: skip
        if not found or record.message == "cancelled in Airflow":
            continue
        true = {state_of(one.word, one.reason).value for one in found}
        accepted = _accepted(true, record, forgetful=forgetful)
        decided_at = (datetime.fromisoformat(record.ended_at) - NIGHT).total_seconds()
        # Of an array that Slurm took twice and forgot once the files may be the other one's.
        once = sum(one.name == record.job_name for one in queue.submissions) == 1
        once &= not world.scenario.faults.too_late
        if (
            once
            and record.state != "unknown"
            and any((o.ended or inf) > decided_at + 1 for o in found)
        ):
            world.violation(f"{where} was written while the job was alive: {record}")
        if record.state not in accepted:
            world.violation(f"{where} says {record.state}, truth is {sorted(true)}")


def _forbids(record: AttemptRecord) -> bool:
    if record.state in {"cancelled", "out_of_memory"}:
        return True
    return record.state == "failed" and record.exit_code == BAD_CONFIG


def _failed_nodes_are_left_out(
    world: World, queue: Queue, task: ShardTask, records: list[AttemptRecord]
) -> None:
    failed: set[str | None] = set()
    for record in records:
        script = next((one.script for one in queue.elements if one.name == record.job_name), None)
        options = parse_directives((world.disk.truth(script or "") or b"").decode())
        if record.attempt > 1 and record.job_id and failed and len(queue.nodes) > len(failed):
            excluded = set(options.get("exclude", "").split(","))
            if record.node in failed and not excluded >= failed:
                world.violation(f"shard {task.rank} ran again on a node that failed: {record}")
        if record.state == "node_failure":
            failed.add(record.node)


def _accepted(true: set[str], record: AttemptRecord, *, forgetful: bool) -> set[str]:
    accepted = true | {"ended_well"} | ({"unknown"} if forgetful else set())
    if "ended_well" in true and record.exit_code == 0:
        accepted.add("failed")  # its manifest could not be read
    if forgetful or "failed" in true:
        accepted |= {"failed", "out_of_memory"}
    if "stopped after its time limit" in record.message:
        accepted.add("time_limit")
    return accepted


def _attempts_are_few(world: World, task: ShardTask, records: list[AttemptRecord]) -> None:
    for before, after in itertools.pairwise(records):
        asked = after.by_try > before.by_try
        earlier = records[before.attempt - 2] if before.attempt > 1 else None
        found = before.by_try > 1 and (earlier is None or earlier.by_try < before.by_try)
        if not before.again and not asked:
            world.violation(f"shard {task.rank}: attempt {after.attempt} though none was to follow")
        if after.by_try == before.by_try and before.again and not found and _forbids(before):
            world.violation(f"shard {task.rank}: another attempt after {before}")
    for by_try in {record.by_try for record in records}:
        count = sum(record.by_try == by_try for record in records)
        if count > world.scenario.max_attempts + 1:
            world.violation(f"shard {task.rank}: {count} attempts in try {by_try}")


def _end_is_just(world: World, queue: Queue, task: ShardTask, records: list[AttemptRecord]) -> None:
    """A shard may be lost only for a cause that forbids another attempt."""
    if task.state == "success" or task.by_person == "stopped":
        return
    where = f"shard {task.rank}"
    if task.error or task.outcome is None or not records:
        world.violation(f"{where} is lost without an attempt: {task.error or task.outcome}")
        return
    last = records[-1]
    counted = [one for one in records if one.by_try == last.by_try]
    if len(counted) >= world.scenario.max_attempts:
        return
    before = records[-2].done if len(records) > 1 else 0
    progressed = last.done > before
    element = [one for one in queue.elements if (one.id, one.name) == (last.job_id, last.job_name)]
    match last.state, last.exit_code:
        case "cancelled", _:
            just = any(one.cancelled_by == BY_HAND for one in element)
        case "out_of_memory", _:
            just = True
        case "time_limit", _:
            just = not progressed
        case "failed", code if code is None or code == CRASHED or code > KILLED:
            just = not progressed and all(one.code not in PASSING for one in element)
        case "failed", code:
            just = code == BAD_CONFIG
        case _:
            just = False
    # Of two arrays with a name the cause may be the other one's.
    double = sum(one.name == last.job_name for one in queue.submissions) > 1
    if not (just or double):
        world.violation(f"{where} is lost unjustly: {last}")


def _rows_are_whole(world: World, pilot: Pilot, task: ShardTask) -> None:
    size = world.scenario.world_size
    data = world.disk.truth(str(pilot.layout.output_file(task.rank, size)))
    expected = [request_id(task.rank, one) for one in range(world.scenario.rows[task.rank])]
    try:
        found = [row["request_id"] for row in json.loads(data or b"")]
    except ValueError:
        found = []
    if found != expected:
        world.violation(f"shard {task.rank} is done with rows {found} instead of {expected}")
    manifest = json.loads(world.disk.truth(str(pilot.layout.manifest(task.rank, size))) or b"{}")
    if manifest.get("sha256") != hashlib.sha256(data or b"").hexdigest():
        world.violation(f"shard {task.rank} is done with an output of another checksum")


def _polls_are_few(world: World, pilot: Pilot) -> None:
    floor = 10 * 0.9 - 0.1
    for process in pilot.processes:
        polls = process.transport.polls
        if not polls:
            continue
        # A poller that had nothing left to watch asks at once when there is something again.
        begun = 2 + 2 * sum(len(task.tries) for task in pilot.tasks) * world.scenario.max_attempts
        most = (polls[-1] - polls[0]) / floor + begun
        if len(polls) > most:
            world.violation(f"{process.name} polled {len(polls)} times, more than {most:.0f}")


async def _following_again_changes_nothing(world: World, queue: Queue, pilot: Pilot) -> None:
    submitted = len(queue.submissions)
    again = pilot.process("again")
    for task in pilot.tasks:
        if task.state != "success":
            continue
        outcome = await pilot.follower(task, again, task.try_number).run()
        if not outcome.done:
            world.violation(f"shard {task.rank} was done, and is not: {outcome.message}")
    if len(queue.submissions) != submitted and not world.scenario.faults.too_late:
        world.violation("following shards that are done submitted something")


async def _merge_is_whole(world: World, pilot: Pilot, folder: Path) -> None:
    collecting, size = pilot.process("collect"), world.scenario.world_size
    transport = collecting.transport
    shards = await patiently(lambda: collect_run(transport, pilot.layout, size, folder), world.tell)
    ids = [row["request_id"] for shard in shards for row in json.loads(shard.output.read_bytes())]
    expected = {
        request_id(rank, one)
        for rank, rows in enumerate(world.scenario.rows)
        for one in range(rows)
    }
    if len(ids) != len(set(ids)):
        world.violation(f"rows twice: {[one for one, n in Counter(ids).items() if n > 1]}")
    if set(ids) != expected:
        world.violation(f"rows lost: {sorted(expected - set(ids))}")
    attempts = await read_attempts(transport, pilot.layout)
    ended_well = {one.rank for one in attempts if one.state == "ended_well"}
    if ended_well != set(range(size)):
        world.violation(f"no attempt is said to have ended well: {set(range(size)) - ended_well}")
