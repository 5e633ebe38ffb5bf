"""``nightshard cancel``: stop a run or a shard, and see its Slurm jobs end."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from nightshard.cli.api import AirflowApi, NoSuchError, SilentAirflowError
from nightshard.cli.runs import RUN_HELP, NamedRun, find_run, rank_of, run_argument, shard_help
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.core.task_states import RUN_ENDED, TASK_ENDED

LOOK_S = 2.0
TRIGGERS_S = 20.0
"""How long the triggers of the shards have to cancel their jobs before they are helped."""

GIVE_UP_S = 120.0


@click.command(
    help="Stop a run, or one shard of it, and wait until Slurm says that its jobs are gone. "
    f"Finished answers are kept: cleared in Airflow, it goes on from there. {RUN_HELP}",
)
@run_argument
@click.option("--shard", "number", type=int, help=shard_help + " Its siblings go on.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def cancel(run: str, number: int | None, yes: bool) -> None:
    """Stop a run or a shard."""
    from nightshard.cli.api import api_from_environment
    from nightshard.cli.local import local_api_access

    api = api_from_environment(local_api_access(Settings.from_env(os.environ)))
    stop = Stop(api, find_run(api, run), number, say=click.echo)
    question = stop.question()
    if question is None:
        return
    if not yes:
        click.confirm(question, abort=True)
    stop.mark()
    stop.wait()


class Stop:
    """The end of a run or of one shard.

    Args:
        api: a logged-in client.
        run: the run.
        number: the only shard to stop, from 1.
        say: prints a sentence.
        sleep: waits, in seconds.
        clock: monotonic seconds.

    Raises:
        UserError: there is no such shard.
    """

    def __init__(
        self,
        api: AirflowApi,
        run: NamedRun,
        number: int | None,
        *,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self.run = run
        self.say = say
        self.sleep = sleep
        self.clock = clock
        self.rank: int | None = None
        self.seen = self._look()
        if number is not None:
            self.rank = rank_of(number, len(self.seen["shards"]))
        what = f"Run {run.name}"
        self.what = what if number is None else f"Shard {number} of {what[0].lower()}{what[1:]}"

    def question(self) -> str | None:
        """Return what to ask before; None where there is nothing to stop, which it says."""
        alive = self._alive()
        if self._ended():
            if not alive:
                self.say(f"{self.what} has ended already ({self._state()}).")
                return None
            return f"{self.what} has ended, but Slurm still has {_jobs(alive)}. Cancel them?"
        having = f", with {_jobs(alive)} in Slurm" if alive else ""
        return f"Cancel {self.what[0].lower()}{self.what[1:]} ({self._state()}{having})?"

    def mark(self) -> None:
        """Mark it failed in Airflow; the triggers of its shards then cancel their jobs."""
        if self._ended():
            return
        if self.rank is None:
            self.api.fail_run(self.run.dag_run_id)
        else:
            self.api.fail_shard(self.run.dag_run_id, self.rank)
        self.say(f"{self.what} is marked failed in Airflow.")

    def wait(self) -> None:
        """Wait until Slurm has none of its jobs.

        What the triggers have not cancelled after a while, because the triggerer is down or the run
        ended in the middle of its submission, is cancelled through Nightshard's pages.

        Raises:
            UserError: some are still there, or the cluster does not answer.
        """
        begun = self.clock()
        helped = False
        while True:
            self._refresh()
            alive = self._alive()
            if alive == [] and self._ended():
                self.say("Slurm has no job of it any more.")
                return
            waited = self.clock() - begun
            if waited > GIVE_UP_S:
                raise UserError(self._given_up(alive))
            if waited > TRIGGERS_S and alive and not helped and self._ended():
                helped = True
                cancelled = self.api.cancel_left(self.run.dag_run_id, self.rank)
                self.say(f"Its trigger was late, so these were cancelled: {', '.join(cancelled)}.")
            self.sleep(LOOK_S)

    def _given_up(self, alive: list[str] | None) -> str:
        if alive is None:
            return (
                f"{self.what} is marked failed, but whether its jobs are gone is not known: "
                f"{self.seen['complaint']}"
            )
        if alive:
            return (
                f"Slurm still has {_jobs(alive)} after {GIVE_UP_S:.0f} s; look at the triggerer's "
                f"log, or run `scancel {' '.join(alive)}` on the cluster."
            )
        return f"Airflow has not ended it after {GIVE_UP_S:.0f} s; look at the scheduler's log."

    def _look(self) -> dict[str, Any]:
        return self.api.shards(self.run.dag_run_id)

    def _refresh(self) -> None:
        try:
            self.seen = self._look()
        except NoSuchError:
            raise
        except SilentAirflowError as error:
            self.seen = {**self.seen, "alive": None, "complaint": str(error)}

    def _shard(self) -> Mapping[str, Any] | None:
        return None if self.rank is None else self.seen["shards"][self.rank]

    def _alive(self) -> list[str] | None:
        """Return its jobs in Slurm, None where they are not known."""
        shard = self._shard()
        if self.seen["alive"] is None or shard is None:
            known: list[str] | None = self.seen["alive"]
            return known
        return [job for job in shard["alive"] if job in self.seen["alive"]]

    def _ended(self) -> bool:
        shard = self._shard()
        if shard is None:
            return self.seen["state"] in RUN_ENDED
        return shard["task_state"] in TASK_ENDED

    def _state(self) -> str:
        shard = self._shard()
        return str(self.seen["state"] if shard is None else shard["task_state"] or "not begun")


def _jobs(alive: list[str]) -> str:
    return f"job {alive[0]}" if len(alive) == 1 else f"{len(alive)} jobs"
