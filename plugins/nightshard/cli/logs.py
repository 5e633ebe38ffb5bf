"""``nightshard logs``: a shard's log on the cluster, without a login there."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import click

from nightshard.cli.api import AirflowApi, SilentAirflowError
from nightshard.cli.runs import RUN_HELP, NamedRun, find_run, rank_of, run_argument, shard_help
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings

FOLLOW_S = 2.0
SILENCE_S = 180.0


@click.command(
    help=f"Show a shard's log on the cluster, read through Airflow. {RUN_HELP}",
)
@run_argument
@click.option("--shard", "number", type=int, required=True, help=shard_help)
@click.option("--attempt", type=click.IntRange(min=1), help="Default: the latest.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the shard has ended.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Begin so many lines before the end.",
)
def logs(run: str, number: int, attempt: int | None, follow: bool, lines: int) -> None:
    """Show a shard's log."""
    from nightshard.cli.api import api_from_environment
    from nightshard.cli.local import local_api_access

    api = api_from_environment(local_api_access(Settings.from_env(os.environ)))
    chosen = find_run(api, run)
    if number < 1:
        rank_of(number, _count(api, chosen))
    reader = LogReader(api, chosen, number, attempt, say=lambda text: click.echo(text, err=True))
    try:
        reader.show(lines, follow=follow)
    except BrokenPipeError:
        sys.stderr.close()  # `| head` has read enough


def _count(api: AirflowApi, run: NamedRun) -> int:
    return len(api.shards(run.dag_run_id)["shards"])


class LogReader:
    """Reads one shard's log and prints what is new.

    Args:
        api: a logged-in client.
        run: the run.
        number: of the shard, from 1.
        attempt: the only one to read; by default the latest, and later ones as they begin.
        say: prints a remark that is no part of the log.
        write: prints a part of the log.
        sleep: waits, in seconds.
    """

    def __init__(
        self,
        api: AirflowApi,
        run: NamedRun,
        number: int,
        attempt: int | None,
        *,
        say: Callable[[str], None],
        write: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api = api
        self.run = run
        self.number = number
        self.attempt = attempt
        self.say = say
        self.write = write or _to_stdout
        self.sleep = sleep
        self.said = ""

    def show(self, lines: int, *, follow: bool) -> None:
        """Print the end of the log and, on request, what follows.

        Raises:
            UserError: there is no such shard or attempt, no log yet, or no answer.
        """
        first = self._ask(None)
        if not first["exists"] and not follow:
            raise UserError(self._none_yet(first))
        text = self._tail(first, lines)
        self.write(text)
        if not follow:
            rest = first["rest"]
            self.write(rest if not rest or rest.endswith("\n") else f"{rest}\n")
            return
        self._follow(first)

    def _follow(self, answer: Mapping[str, Any]) -> None:
        current, offset = int(answer["attempt"]), int(answer["offset"])
        while True:
            if not answer["exists"]:
                self._remark(self._none_yet(answer))
            behind = answer["more"]
            latest = self._latest(answer)
            if answer["over"] and not behind:
                if answer["rest"]:
                    self.write(f"{answer['rest']}\n")
                if self.attempt is not None or answer["shard"]["final"]:
                    self._remark(f"Shard {self.number}: {answer['shard']['message']}.")
                    return
                if latest > current:
                    current, offset = latest, 0
                    self._remark(f"Attempt {latest} follows.")
            if not behind:
                self.sleep(FOLLOW_S)
            answer = self._ask(current, offset)
            if answer["exists"] and answer["start"] < offset:
                self._remark("The log began anew.")
            self.write(answer["lines"])
            offset = int(answer["offset"])

    def _latest(self, answer: Mapping[str, Any]) -> int:
        attempts = [one["attempt"] for one in answer["shard"]["attempts"] if one["job_id"]]
        return max(attempts, default=1)

    def _ask(self, attempt: int | None, offset: int = -1) -> dict[str, Any]:
        """Ask for a piece; a restart of the API server is waited for."""
        heard = time.monotonic()
        while True:
            try:
                return self.api.log(
                    self.run.dag_run_id,
                    self.number - 1,
                    attempt=self.attempt or attempt,
                    offset=offset,
                )
            except SilentAirflowError:
                if offset < 0 or time.monotonic() - heard > SILENCE_S:
                    raise
                self._remark("Airflow does not answer; trying again.")
                self.sleep(FOLLOW_S)

    def _tail(self, last: Mapping[str, Any], lines: int) -> str:
        """Return the last whole lines, from as many pieces as they take."""
        text, start = str(last["lines"]), int(last["start"])
        while text.count("\n") < lines and start > 0:
            piece = self.api.log(
                self.run.dag_run_id, self.number - 1, attempt=last["attempt"], before=start
            )
            if int(piece["start"]) >= start:
                break  # one line longer than an answer
            text, start = piece["lines"] + piece["rest"] + text, int(piece["start"])
        kept = text.splitlines(keepends=True)
        return "".join(kept[len(kept) - lines :] if lines < len(kept) else kept)

    def _none_yet(self, answer: Mapping[str, Any]) -> str:
        shard = answer["shard"]
        who = f"Shard {shard['number']} of {shard['count']}"
        if answer["complaint"]:
            return str(answer["complaint"])
        if answer["over"]:
            return f"{who} left no log: {shard['message']}."
        since = ""
        if shard["state"] == "waiting" and answer["submitted_at"]:
            at = datetime.fromisoformat(answer["submitted_at"]).astimezone()
            since = f", submitted at {at:%Y-%m-%d %H:%M}"
        return f"{who} has no log yet: {shard['message']}{since}."

    def _remark(self, sentence: str) -> None:
        if sentence != self.said:
            self.said = sentence
            self.say(sentence)


def _to_stdout(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()
