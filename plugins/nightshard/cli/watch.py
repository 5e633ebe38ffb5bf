"""Following a run in the terminal: a bar a shard, then the scores."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from nightshard.cli.api import MAP_INDEX_UNMAPPED, AirflowApi, SilentAirflowError
from nightshard.core.story import ShardProgress, read_progress
from nightshard.core.task_states import RUN_ENDED, SHARD_TASK, TASK_ENDED

T = TypeVar("T")

POLL_S = 1.0

LOGS_PER_S = 5.0
"""How many shards' logs are asked for in a second; of many shards each is asked for more rarely."""

LOG_S = 2.0
"""How often the log of one shard is asked for at most."""

SILENCE_S = 180.0
"""How long Airflow may be silent before following it is given up."""


def follow(api: AirflowApi, run_id: str, console: Console, silence_s: float = SILENCE_S) -> str:
    """Show a run until it ends and return its final state (``success`` or ``failed``).

    Raises:
        UserError: Airflow did not answer for ``silence_s`` seconds, or refuses to.
    """
    with Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        view = _View(progress, console)
        while (state := heard(lambda: view.look(api, run_id), silence_s)) not in RUN_ENDED:
            time.sleep(POLL_S)
        return state


def heard(ask: Callable[[], T], silence_s: float = SILENCE_S) -> T:
    """Ask Airflow until it answers.

    A run goes on without its API server, of which a restart takes half a minute.

    Raises:
        UserError: it did not answer for ``silence_s`` seconds, or refuses to.
    """
    began = time.monotonic()
    while True:
        try:
            return ask()
        except SilentAirflowError:
            if time.monotonic() - began > silence_s:
                raise
            time.sleep(POLL_S)


def failure_sentences(api: AirflowApi, run_id: str) -> list[str]:
    """Say why a run failed, a text for each failed task: its exception's message."""
    sentences = []
    for task in api.task_instances(run_id):
        if task["state"] == "failed":
            label = task.get("rendered_map_index") or task["task_id"]
            sentences.append(f"{label}: {_last_error(api.log_events(run_id, task))}")
    return sentences


def _last_error(events: Iterable[Mapping[str, Any]]) -> str:
    message = "it failed without a message; open its log in Airflow."
    for event in events:
        for detail in event.get("error_detail") or []:
            message = detail["exc_value"]
    return message


def _is_shard(task: Mapping[str, Any]) -> bool:
    return bool(task["task_id"] == SHARD_TASK and task["map_index"] != MAP_INDEX_UNMAPPED)


class _View:
    """What is on the screen: bars on a terminal, plain lines where the output is a file."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self.progress = progress
        self.console = console
        self.bars: dict[int, TaskID] = {}
        self.states: dict[str, str] = {}
        self.logs: dict[int, _Log] = {}

    def look(self, api: AirflowApi, run_id: str) -> str:
        """Ask Airflow once, show what changed and return the run's state."""
        state = api.run_state(run_id)
        tasks = api.task_instances(run_id)
        self.show_steps(tasks)
        for task in tasks:
            if _is_shard(task):
                self.show_shard(task, api, run_id)
        return state

    def show_steps(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        for task in tasks:
            label = str(task.get("rendered_map_index") or task["task_id"])
            state = task["state"]
            if state in TASK_ENDED and self.states.get(label) != state:
                self.states[label] = state
                if not _is_shard(task) or not self.console.is_terminal:
                    took = f" ({task['duration']:.1f} s)" if task.get("duration") else ""
                    self.console.print(f"  {label}: {state}{took}", highlight=False)

    def show_shard(self, task: Mapping[str, Any], api: AirflowApi, run_id: str) -> None:
        index = int(task["map_index"])
        label = str(task.get("rendered_map_index") or f"shard {index + 1}")
        if index not in self.bars:
            self.bars[index] = self.progress.add_task(label, total=None, note="")
        bar = self.bars[index]
        if self.progress.tasks[bar].finished or self.progress.disable:
            return
        latest = self.latest_progress(task, api, run_id)
        if latest is not None:
            rate = f", {latest.tokens_per_s:,} tok/s" if latest.tokens_per_s else ""
            note = f"{latest.phase} on {latest.node}{rate}"
            self.progress.update(
                bar, description=label, completed=latest.done, total=latest.total, note=note
            )
        if task["state"] == "success" and latest is not None:
            self.progress.update(bar, completed=latest.total, note=f"done on {latest.node}")
        elif task["state"] in TASK_ENDED:
            self.progress.update(bar, note=f"[red]{task['state']}")

    def latest_progress(
        self, task: Mapping[str, Any], api: AirflowApi, run_id: str
    ) -> ShardProgress | None:
        """Read on in a shard's log, unless it was read a moment ago and the shard still runs."""
        log = self.logs.get(int(task["map_index"]))
        if log is None or log.try_number != task["try_number"]:
            log = self.logs[int(task["map_index"])] = _Log(task["try_number"])
        now = time.monotonic()
        if now >= log.due or task["state"] in TASK_ENDED:
            log.due = now + max(LOG_S, len(self.logs) / LOGS_PER_S)
            events, log.token = api.new_log_events(run_id, task, log.token)
            log.latest = _latest_progress(events) or log.latest
        return log.latest


@dataclass(slots=True)
class _Log:
    """How far a shard's log has been read."""

    try_number: int
    token: str | None = None
    due: float = 0.0
    latest: ShardProgress | None = None


def _latest_progress(events: Iterable[Mapping[str, Any]]) -> ShardProgress | None:
    latest = None
    for event in events:
        latest = read_progress(str(event.get("event", ""))) or latest
    return latest
