"""What watching 50 runs of 128 shards costs: the login node, the line and the triggerer.

Three scenes in one run, each with a real sshd and Nightshard's own poller at its default floor:

* queued: all 6,400 elements wait in a real Slurm, held.
* running: all of them run. One machine does not carry so many, so ``squeue`` is a program on that
  sshd's PATH which prints as many rows in the form that Slurm prints. The progress files are real
  and a process rewrites them all the time.
* a sensor per shard: the SSH provider's own hook, one connection for each shard and one ``squeue``
  for each shard and interval, against the same real Slurm. What one machine does not carry is
  extrapolated and marked so.

Beside them: the time to parse the answer about 10,000 elements.

    make perf NAME=polling [ARGS=--quick]
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from login_node import (
    Line,
    Usage,
    cancel_held,
    cpu_seconds,
    make_runs,
    progress_text,
    row,
    stand_in,
    submit_held,
    workers,
)
from rich.console import Console
from rich.table import Table

from nightshard.clusters.layout import RunLayout
from nightshard.clusters.pacing import PollBounds
from nightshard.clusters.poll import parse_poll
from nightshard.clusters.poll_program import FILE_KINDS
from nightshard.clusters.poller import ClusterPoller
from nightshard.clusters.status import WatchedShard
from nightshard.clusters.submit import ArrayJob
from nightshard.local.cluster import running
from nightshard.local.info import ClusterInfo

RUNS, SHARDS = 50, 128
ELEMENTS = 10_000
FLOOR_S = PollBounds().floor_s
QUICK_FLOOR_S = 3.0
TICK_S = 0.05
CONNECTION = "perf_login_node"


@dataclass(frozen=True)
class Scene:
    """What one scene cost.

    Attributes:
        shards: watched.
        polls: intervals that were measured.
        logins: connections in all.
        commands: remote commands per interval.
        received: bytes per interval.
        cpu: CPU seconds of the event loop's process per interval.
        share: the same as a share of one core at the default floor.
        remote_cpu: CPU seconds of the remote commands with their children per interval, without
            sshd and login shells.
        lag: most CPU seconds of the event loop between two ticks of a clock in it.
    """

    shards: int
    polls: int
    logins: int
    commands: float
    received: float
    cpu: float
    share: float
    remote_cpu: float
    lag: float


def main() -> None:
    """Measure all scenes and print the table, then the line that names the goals' figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer intervals, fewer sensors")
    arguments = parser.parse_args()
    intervals, sensors = (1, 16) if arguments.quick else (6, 128)
    floor_s = QUICK_FLOOR_S if arguments.quick else FLOOR_S
    parse = parse_seconds(repeats=5 if arguments.quick else 15)
    with (
        tempfile.TemporaryDirectory(prefix="nightshard-perf-") as name,
        running(Path(name) / "cluster") as info,
    ):
        folder = Path(name)
        runs = make_runs(info.shared / "nightshard", RUNS, SHARDS)
        held = [one for shards in submit_held(info, runs) for one in shards]
        queued = asyncio.run(measure(Line(info), held, intervals, floor_s))
        alone = asyncio.run(measure_sensors(info, held[:sensors], intervals, floor_s))
        cancel_held(info, held)
        shards = [one for run in runs for one in run]
        programs = stand_in(folder / "bin", shards)
        with workers(folder, shards, floor_s):
            busy = asyncio.run(measure(Line(info, programs), shards, intervals, floor_s))
        report(queued, busy, alone, parse)  # before 13,000 files are cleared away


def parse_seconds(repeats: int) -> list[float]:
    """Return the CPU seconds of parsing an answer about 10,000 running elements."""
    layout = RunLayout(PurePosixPath("/work"), "20261124-2323-smollm2-135m-instruct-61aed2")
    job = ArrayJob("1000", None, layout.job_name("a1"), 1)
    shards = [WatchedShard(layout, rank, ELEMENTS, job, 1, "") for rank in range(ELEMENTS)]
    nonce = "0" * 16
    rows = "".join(
        row(one, "RUNNING", f"{one.rank % 7}:02:{one.rank % 60:02d}") + "\n" for one in shards
    )
    kind = FILE_KINDS.index("progress") + 1
    files = "".join(f"{one.rank} {kind}:{progress_text(one.rank, 100)}\n" for one in shards)
    sections = [f"squeue \n{rows}", "squeue-status 0\n", f"files\n={job.name}\n{files}"]
    text = "".join(f"\n@{nonce} {one}" for one in [*sections, "awk-status 0\n", "end\n"])
    seconds = []
    for _ in range(repeats):
        usage = Usage()
        answer = parse_poll(text, nonce, {job.name})
        seconds.append(usage.cpu())
        assert len(answer.queue) == len(answer.files) == ELEMENTS
    return seconds


async def measure(line: Line, shards: list[WatchedShard], intervals: int, floor_s: float) -> Scene:
    """Watch all shards with one poller; the first poll, which looks at everything, is left out."""
    poller = ClusterPoller(line.transport, PollBounds(floor_s=floor_s, ceiling_s=floor_s))

    async def watch(shard: WatchedShard) -> None:
        async for _ in poller.watch(shard):
            pass

    watching = [asyncio.create_task(watch(shard)) for shard in shards]
    lags: list[float] = []
    ticking = asyncio.create_task(_tick(lags))
    try:
        await _taken_in(line, 1)
        usage, commands, received = Usage(), line.commands, line.received
        polls = poller.polls
        lags.clear()
        await _taken_in(line, intervals)
        polls = poller.polls - polls
        return Scene(
            shards=len(shards),
            polls=polls,
            logins=line.logins,
            commands=(line.commands - commands) / polls,
            received=(line.received - received) / polls,
            cpu=usage.cpu() / polls,
            share=usage.cpu() / polls / FLOOR_S,
            remote_cpu=statistics.median(line.remote_cpu[1:]),
            lag=max(lags),
        )
    finally:
        await _cancelled([*watching, ticking])


async def _taken_in(line: Line, answers: int) -> None:
    """Wait until so many more polls have been answered, and the answers have been taken in."""
    for _ in range(answers):
        await line.answered.get()
    await asyncio.sleep(1.0)


async def _tick(lags: list[float]) -> None:
    """Note for how long the loop worked without a break: its CPU time between two ticks."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(TICK_S)
        lags.append(time.thread_time() - began)


async def _cancelled(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.2)


async def measure_sensors(
    info: ClusterInfo, shards: list[WatchedShard], intervals: int, floor_s: float
) -> Scene:
    """Watch shards as a sensor for each would: a connection and a ``squeue`` for each."""
    connection = json.dumps(info.airflow_connection())
    os.environ[f"AIRFLOW_CONN_{CONNECTION.upper()}"] = connection
    from airflow.providers.ssh.hooks.ssh import SSHHookAsync  # noqa: PLC0415 (takes seconds)

    logging.getLogger("asyncssh").setLevel(logging.WARNING)

    remote: list[float] = []
    received: list[int] = []
    door = asyncio.Semaphore(4)  # sshd takes a few logins at a time
    all_in = asyncio.Barrier(len(shards) + 1)

    async def sensor(shard: WatchedShard, delay: float) -> None:
        async with door:
            login = await SSHHookAsync(ssh_conn_id=CONNECTION).get_conn()
        async with login:
            await all_in.wait()
            await asyncio.sleep(delay)
            for left in reversed(range(intervals)):
                began = time.monotonic()
                ask = f"squeue -h -j {shard.job.element(shard.rank)} -o %T"
                # A shell of its own, so that the login shell's start-up files are not counted.
                answer = await login.run(f"bash -c '{ask}; times >&2'", check=True)
                remote.append(cpu_seconds(str(answer.stderr)))
                received.append(len(str(answer.stdout)))
                if left:
                    await asyncio.sleep(max(0.0, floor_s - time.monotonic() + began))

    tasks = [
        asyncio.create_task(sensor(shard, floor_s * number / len(shards)))
        for number, shard in enumerate(shards)
    ]
    await all_in.wait()
    lags: list[float] = []
    ticking = asyncio.create_task(_tick(lags))
    usage = Usage()
    await asyncio.gather(*tasks)
    cpu = usage.cpu() / intervals
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking
    return Scene(
        shards=len(shards),
        polls=intervals,
        logins=len(shards),
        commands=len(remote) / intervals,
        received=sum(received) / intervals,
        cpu=cpu,
        share=cpu / FLOOR_S,
        remote_cpu=sum(remote) / intervals,
        lag=max(lags),
    )


def report(queued: Scene, busy: Scene, alone: Scene, parse: list[float]) -> None:
    """Print what was measured."""
    all_shards = RUNS * SHARDS
    factor = all_shards / alone.shards
    table = Table(title=f"{RUNS} runs of {SHARDS} shards, an interval of {FLOOR_S:g} s")
    for column in ("per interval", "queued", "running", "a sensor per shard", "extrapolated"):
        table.add_column(column, justify="left" if column == "per interval" else "right")
    scenes = (queued, busy, alone)

    def line(name: str, values: list[str], extrapolated: str = "") -> None:
        table.add_row(name, *values, extrapolated)

    line("shards", [f"{one.shards:,}" for one in scenes], f"{all_shards:,}")
    line("intervals measured", [str(one.polls) for one in scenes])
    line("logins in all", [str(one.logins) for one in scenes], f"{alone.logins * factor:,.0f}")
    line("commands", [f"{one.commands:g}" for one in scenes], f"{alone.commands * factor:,.0f}")
    line(
        "kB received",
        [f"{one.received / 1000:,.1f}" for one in scenes],
        f"{alone.received * factor / 1000:,.1f}",
    )
    line(
        "login node, CPU s",
        [f"{one.remote_cpu:.2f}" for one in scenes],
        f"{alone.remote_cpu * factor:.1f}",
    )
    line("event loop, CPU s", [f"{one.cpu:.3f}" for one in scenes], f"{alone.cpu * factor:.2f}")
    line(
        "event loop, share of a core",
        [f"{one.share:.1%}" for one in scenes],
        f"{alone.share * factor:.0%}",
    )
    line("longest stretch of the loop, CPU ms", [f"{1000 * one.lag:.0f}" for one in scenes])
    Console(width=100).print(table)
    parse_ms = 1000 * statistics.median(parse)
    print(
        f"Parsing an answer about {ELEMENTS:,} elements: {parse_ms:.0f} ms of CPU "
        f"({1000 * min(parse):.0f} to {1000 * max(parse):.0f})"
    )
    print(
        f"perf polling: commands_per_interval={max(queued.commands, busy.commands):g} goal=1 "
        f"per_shard_commands_per_interval={alone.commands * factor:.0f} "
        f"parse_10000_ms={parse_ms:.0f} goal_ms=100 "
        f"cpu_share_queued={queued.share:.3f} cpu_share_running={busy.share:.3f} "
        f"cpu_per_shard_over_ours={alone.cpu * factor / busy.cpu:.1f} "
        f"login_node_cpu_s={busy.remote_cpu:.2f} runs={RUNS} shards={SHARDS}"
    )


if __name__ == "__main__":
    main()
