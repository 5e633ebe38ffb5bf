"""`status`, `logs` and `cancel` against Airflow and Nightshard's pages, cut at the wire."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nightshard.cli.api import AirflowApi, NoSuchError, SilentAirflowError
from nightshard.cli.cancel import Stop
from nightshard.cli.logs import LogReader
from nightshard.cli.runs import NamedRun, choose, find_run, rank_of
from nightshard.cli.status import gather, show
from nightshard.core.errors import UserError

pytestmark = pytest.mark.unit

Handler = Callable[[httpx.Request], httpx.Response | None]

RUN = NamedRun("manual__1", "20261124-0130-smollm2-5f2a9c", "running")
PAGES = "/nightshard/dags/evaluate/runs/manual__1"


def client(handle: Handler) -> AirflowApi:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "example"})
        found = handle(request)
        assert found is not None, request.url
        return found

    return AirflowApi("http://example", "admin", "x", transport=httpx.MockTransport(answer))


def ok(value: Any) -> httpx.Response:
    return httpx.Response(200, json=value)


def run_json(run_id: str, model: str | None = "org/SmolLM2", minute: int = 30) -> dict[str, Any]:
    conf = {} if model is None else {"model": model}
    after = f"2026-11-24T01:{minute}:00Z"
    return {"dag_run_id": run_id, "state": "running", "conf": conf, "run_after": after}


def named(number: int, deployment: str | None = "d1") -> NamedRun:
    return NamedRun.of(run_json(f"manual__{number}", minute=number), deployment)


NAMED = [named(number) for number in range(10, 14)]


def test_a_run_is_found_by_either_name_or_a_beginning_that_only_it_has() -> None:
    third = NAMED[2]
    assert third.run_key is not None
    for name in (third.run_key, third.run_key[:13], "manual__12"):
        assert choose(NAMED, name) == third


def test_the_same_run_id_in_another_installation_is_another_run() -> None:
    assert named(10).run_key != named(10, "d2").run_key


def test_a_run_whose_params_are_not_told_goes_by_airflows_id() -> None:
    assert NamedRun.of(run_json("manual__10", model=None), "d1").name == "manual__10"
    assert named(10, None).name == "manual__10"


@given(st.text(min_size=1, max_size=30))
def test_no_name_finds_two_runs_or_a_wrong_one(name: str) -> None:
    fitting = [one for one in NAMED if one.begins_with(name)]
    if len(fitting) == 1:
        assert choose(NAMED, name) == fitting[0]
        return
    with pytest.raises(UserError, match="Several runs" if fitting else "There is no run"):
        choose(NAMED, name)


def test_a_misspelt_run_is_answered_with_what_is_meant() -> None:
    with pytest.raises(UserError, match=r"no run 'manual_12'; did you mean manual__12\?"):
        choose(NAMED, "manual_12")
    with pytest.raises(UserError, match=r"Several runs begin with 'manual': 2026.* and 1 more"):
        choose(NAMED, "manual")


def test_latest_is_the_newest_run() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/dagRuns"):
            return ok({"dag_runs": [run_json("manual__9")], "total_entries": 1})
        if request.url.path.endswith("/deployment"):
            return ok({"deployment": "d1"})
        return ok(run_json("manual__9"))

    found = find_run(client(handle), "latest")
    assert found == NamedRun.of(run_json("manual__9"), "d1")


@pytest.mark.parametrize(("number", "count"), [(0, 8), (9, 8), (1, 0), (-1, 8)])
def test_a_shard_number_out_of_range_is_answered_with_the_range(number: int, count: int) -> None:
    with pytest.raises(UserError, match="1 to 8" if count else "has no shards"):
        rank_of(number, count)


def test_a_lost_reply_to_a_trigger_cannot_start_a_second_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        run_id = json.loads(request.content)["dag_run_id"]
        if run_id in started:
            return httpx.Response(409, json={"detail": "exists"})
        started.append(run_id)
        raise httpx.ReadTimeout("lost")

    monkeypatch.setattr("time.sleep", lambda _: None)
    assert [client(handle).trigger({"model": "m"})] == started


def test_an_airflow_without_the_plugin_is_told_as_such() -> None:
    api = client(lambda _: httpx.Response(404, json={"detail": "Not Found"}))
    with pytest.raises(NoSuchError, match="does not serve Nightshard's pages"):
        api.shards("manual__1")


def shard(number: int = 1, **changes: Any) -> dict[str, Any]:
    value = {
        "rank": number - 1,
        "number": number,
        "count": 2,
        "rows": 1000,
        "task_state": "deferred",
        "try_number": 1,
        "state": "running",
        "final": False,
        "message": "running on node1",
        "job_id": f"56_{number - 1}",
        "node": "node1",
        "phase": "generating",
        "done": 400,
        "tokens_per_s": 1250,
        "alive": [f"56_{number - 1}"],
        "attempts": [{"attempt": 1, "job_id": f"56_{number - 1}"}],
    }
    return {**value, **changes}


WAITING = {
    "state": "waiting",
    "message": "waiting in the queue (Resources)",
    "node": None,
    "done": None,
    "tokens_per_s": None,
}


def told(*shards: dict[str, Any], **changes: Any) -> dict[str, Any]:
    value = {
        "dag_run_id": "manual__1",
        "run_key": RUN.run_key,
        "model": "org/[bold]SmolLM2",
        "cluster": "local",
        "state": "running",
        "submitted_at": "2026-11-24T01:31:00+00:00",
        "complaint": None,
        "alive": [job for one in shards for job in one["alive"]],
        "shards": list(shards),
    }
    return {**value, **changes}


TASKS = {
    "task_instances": [
        {"task_id": "plan", "map_index": -1, "state": "success", "duration": 3, "try_number": 2},
        {"task_id": "shard", "map_index": 0, "state": "deferred", "try_number": 1},
    ],
    "total_entries": 2,
}


def screen(run: httpx.Response) -> tuple[dict[str, Any], str]:
    api = client(lambda one: run if one.url.path == f"{PAGES}/shards" else ok(TASKS))
    found, text = gather(api, RUN), StringIO()
    show(found, Console(file=text, width=160))
    return found, text.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def test_status_shows_each_shard_and_the_sum() -> None:
    found, text = screen(ok(told(shard(1), shard(2, **WAITING))))
    assert "20261124-0130-smollm2-5f2a9c  running" in text
    assert "org/[bold]SmolLM2" in text
    assert "plan success 3.0 s (try 2)" in text
    assert (
        "1 of 2  running  56_0       node1  400 of 1,000  1,250         1  running on node1" in text
    )
    assert "waiting in the queue (Resources)" in text
    assert "0 of 2 shards done, 1 running, 1 waiting, 400 of 2,000 answers, 1,250 tok/s" in text
    assert json.loads(json.dumps(found))["totals"]["running"] == 1


def test_status_shows_what_airflow_knows_where_the_pages_cannot_tell() -> None:
    _, text = screen(httpx.Response(502, json={"detail": "The login was denied."}))
    assert "The login was denied." in text
    assert "1 of 1  deferred" in text


class Log:
    """A remote log behind the endpoint, in pieces of at most ``limit`` bytes."""

    def __init__(self, text: str, limit: int = 1 << 18) -> None:
        self.text, self.limit = text, limit
        self.over = True
        self.shard = shard(1)
        self.then: list[Callable[[], None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.then:
            self.then.pop(0)()
        asked = request.url.params
        before, offset = int(asked.get("before", 0)), int(asked.get("offset", -1))
        end = before or (len(self.text) if offset < 0 else min(len(self.text), offset + self.limit))
        start = max(0, end - self.limit) if offset < 0 or before else offset
        if start and (before or offset < 0):
            start = self.text.index("\n", start) + 1
        whole = self.text.rfind("\n", start, end) + 1 or start
        return ok(
            {
                "attempt": int(asked.get("attempt", 1)),
                "exists": bool(self.text),
                "more": end < len(self.text),
                "start": start,
                "offset": whole,
                "size": len(self.text),
                "lines": self.text[start:whole],
                "rest": self.text[whole:end],
                "over": self.over,
                "shard": self.shard,
                "submitted_at": "2026-11-24T01:31:00+00:00",
                "complaint": None,
            }
        )


def read(log: Log, lines: int = 100, *, follow: bool = False) -> tuple[str, list[str]]:
    said: list[str] = []
    written: list[str] = []
    reader = LogReader(
        client(log), RUN, 1, None, say=said.append, write=written.append, sleep=lambda _: None
    )
    reader.show(lines, follow=follow)
    return "".join(written), said


@given(st.lists(st.text("ab", max_size=5), max_size=30), st.integers(0, 40), st.integers(8, 60))
def test_the_last_lines_are_those_of_the_whole_log(
    lines: list[str], wanted: int, limit: int
) -> None:
    text = "".join(f"{line}\n" for line in ["first", *lines])
    kept = text.splitlines(keepends=True)
    written, _ = read(Log(text, limit), wanted)
    assert written == "".join(kept[max(0, len(kept) - wanted) :])


def test_following_prints_every_line_once_and_ends_with_the_shard() -> None:
    log = Log("one\ntwo")
    log.over = False

    def grow() -> None:
        log.text += " more\nthree\n"

    def end() -> None:
        log.text += "four\nfive"
        log.over, log.shard = True, shard(1, final=True, message="done on node1")

    log.then = [lambda: None, grow, end]
    written, said = read(log, follow=True)
    assert written == "one\ntwo more\nthree\nfour\nfive\n"
    assert said == ["Shard 1: done on node1."]


def test_a_log_that_is_not_there_yet_says_what_it_waits_for() -> None:
    log = Log("")
    log.over, log.shard = False, shard(1, **WAITING)
    with pytest.raises(UserError, match=r"no log yet: waiting in the queue \(Resources\), submitt"):
        read(log)


def test_following_goes_on_with_the_next_attempt() -> None:
    log = Log("one\n")

    def second() -> None:
        attempts = [{"attempt": 1, "job_id": "56_0"}, {"attempt": 2, "job_id": "77_0"}]
        log.shard = shard(1, attempts=attempts)

    def end() -> None:
        log.text, log.shard = "two\n", shard(1, final=True, message="done")

    log.then = [lambda: None, second, end]
    written, said = read(log, follow=True)
    assert written == "one\ntwo\n"
    assert said == ["Attempt 2 follows.", "Shard 1: done."]


class Site:
    """A run that is cancelled; each look takes the next of ``states``."""

    def __init__(self, *looks: dict[str, Any]) -> None:
        self.looks = list(looks)
        self.calls: list[str] = []
        self.silent = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == f"{PAGES}/shards":
            return ok(self.looks.pop(0) if len(self.looks) > 1 else self.looks[0])
        self.calls.append(f"{request.method} {path.rpartition('/dagRuns/')[2]}")
        return ok({"cancelled": ["56_0"]} if path.endswith("/cancel") else {})


def stop(site: Site, number: int | None = None) -> tuple[Stop, list[str]]:
    said: list[str] = []
    now = iter(range(0, 100_000, 4))
    made = Stop(
        client(site), RUN, number, say=said.append, sleep=lambda _: None, clock=lambda: next(now)
    )
    return made, said


GONE = {"alive": [], "task_state": "failed", "state": "cancelled"}


def test_cancelling_a_run_waits_until_slurm_has_none_of_its_jobs() -> None:
    going = told(shard(1), shard(2), state="failed")
    site = Site(told(shard(1), shard(2)), going, going, told(shard(1, **GONE), state="failed"))
    made, said = stop(site)
    assert made.question() == f"Cancel run {RUN.name} (running, with 2 jobs in Slurm)?"
    made.mark()
    made.wait()
    assert site.calls == ["PATCH manual__1"]
    assert said[-1] == "Slurm has no job of it any more."


def test_cancelling_a_shard_leaves_its_siblings_alone() -> None:
    site = Site(told(shard(1), shard(2)), told(shard(1), shard(2, **GONE)))
    made, said = stop(site, 2)
    made.mark()
    made.wait()
    assert site.calls == ["PATCH manual__1/taskInstances/shard/1"]
    assert said[-1] == "Slurm has no job of it any more."


def test_jobs_that_no_trigger_cancels_are_cancelled_through_the_pages() -> None:
    left = told(shard(1, task_state="failed"), state="failed")
    site = Site(told(shard(1)), *[left] * 8, told(shard(1, **GONE), state="failed"))
    made, said = stop(site)
    made.mark()
    made.wait()
    assert site.calls == ["PATCH manual__1", f"POST {PAGES}/cancel"]
    assert "these were cancelled: 56_0" in said[1]


def test_jobs_that_stay_are_named_with_what_to_do() -> None:
    site = Site(told(shard(1)), told(shard(1, task_state="failed"), state="failed"))
    made, _ = stop(site)
    made.mark()
    with pytest.raises(UserError, match=r"still has job 56_0 after 120 s.*`scancel 56_0`"):
        made.wait()


def test_an_ended_run_is_not_cancelled_again() -> None:
    made, said = stop(Site(told(shard(1, **GONE), state="success")))
    assert made.question() is None
    assert said == [f"Run {RUN.name} has ended already (success)."]


def test_a_cluster_that_does_not_answer_is_not_taken_for_an_empty_queue() -> None:
    silent = told(shard(1, alive=[]), state="failed", alive=None, complaint="No route.")
    made, _ = stop(Site(told(shard(1)), silent))
    made.mark()
    with pytest.raises(UserError, match=r"not known: No route\."):
        made.wait()


def test_a_silent_airflow_stays_one_sentence() -> None:
    def silent(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(SilentAirflowError, match="does not answer"):
        client(silent).shards("manual__1")
