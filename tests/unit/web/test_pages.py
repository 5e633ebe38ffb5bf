"""What the pages say of a shard: its log, its attempts, its jobs; and who may see them."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nightshard.clusters.profile import Links

pytestmark = pytest.mark.unit

RUN = "/dags/evaluate/runs/manual__1"
LOG = f"{RUN}/shards/1/log"
HTML = {"accept": "text/html"}


def progress(**changes: Any) -> dict[str, Any]:
    return {
        "contract_version": 2,
        "rank": 1,
        "attempt": 1,
        "phase": "generating",
        "done": 4,
        "total": 10,
        "errors": 0,
        "output_tokens": 60,
        "tokens_per_s": 12.5,
        "node": "node1",
        "job_id": "57",
        "updated_at": "2026-11-24T22:00:03+00:00",
        "message": None,
        **changes,
    }


def record(attempt: int, *, again: bool) -> dict[str, Any]:
    return {
        "rank": 1,
        "attempt": attempt,
        "job_id": "56_1",
        "job_name": "ns-run-1-a1",
        "state": "node_failure",
        "damaged": False,
        "exit_code": None,
        "node": "node2",
        "elapsed_s": 60,
        "gpus": 0,
        "done": 4,
        "message": "its node failed on node2",
        "again": again,
        "decision": "again without node2" if again else "stop: enough",
        "by_try": 1,
        "ended_at": "2026-11-24T22:00:03+00:00",
    }


@pytest.fixture
def running(site: Any) -> Any:
    """Shard 2 of 3 runs; the others wait."""
    site.submitted()
    site.squeue("56_0 PENDING N/A", "56_1 RUNNING node1", "56_2 PENDING N/A", "99_0 RUNNING node3")
    site.write(site.layout.progress(1), progress())
    site.write(site.layout.attempt_log(1, 1), "first\n\x1b[31m<b>second</b>\x1b[0m\nthird")
    return site


def test_a_runs_shards_are_told_by_one_remote_command(running: Any, app: TestClient) -> None:
    told = app.get(f"{RUN}/shards").json()
    assert running.shell.commands == 1
    assert [(one["state"], one["job_id"]) for one in told["shards"]] == [
        ("waiting", "56_0"),
        ("running", "56_1"),
        ("waiting", "56_2"),
    ]
    second = told["shards"][1]
    assert (second["done"], second["rows"], second["tokens_per_s"]) == (4, 10, 12)
    assert (second["node"], second["alive"]) == ("node1", ["56_1"])


def test_jobs_of_other_runs_are_not_told(running: Any, app: TestClient) -> None:
    rows = (running.bin / "rows").read_text().replace("1:05|ns-run-1-a1", "1:05|ns-run-10-a1")
    (running.bin / "rows").write_text(rows)
    assert app.get(f"{RUN}/shards").json()["alive"] == []


def test_many_who_look_at_once_cost_one_look(running: Any, app: TestClient) -> None:
    for _ in range(5):
        app.get(f"{RUN}/shards")
    assert running.shell.commands == 1


def test_the_page_shows_log_job_and_paths_and_escapes_what_they_hold(
    running: Any, app: TestClient
) -> None:
    page = app.get(LOG, headers=HTML).text
    assert '<span class="c-red">&lt;b&gt;second&lt;/b&gt;</span>' in page
    assert "org/&lt;model&gt;" in page
    assert "Shard 2 of 3" in page
    assert "56_1" in page
    assert str(running.layout.attempt_log(1, 1)) in page


def test_the_page_runs_no_script_but_its_own(running: Any, app: TestClient) -> None:
    policy = app.get(LOG, headers=HTML).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_following_goes_on_where_it_stopped(running: Any, app: TestClient) -> None:
    first = app.get(f"{LOG}.json").json()
    assert (first["lines"], first["rest"]) == ("first\n<b>second</b>\n", "third")
    assert not first["over"]
    with Path(running.layout.attempt_log(1, 1)).open("a") as file:
        file.write(" line\nfourth\n")
    more = app.get(f"{LOG}.json", params={"offset": first["offset"]}).json()
    assert (more["lines"], more["rest"]) == ("third line\nfourth\n", "")


def test_a_log_that_began_anew_is_read_from_its_start(running: Any, app: TestClient) -> None:
    answer = app.get(f"{LOG}.json", params={"offset": 10_000}).json()
    assert (answer["start"], answer["lines"][:6]) == (0, "first\n")


def test_a_long_log_is_read_back_and_on_in_bounded_answers(running: Any, app: TestClient) -> None:
    whole = "".join(f"line {number} is here\n" for number in range(40_000))
    running.write(running.layout.attempt_log(1, 1), whole)
    last = app.get(f"{LOG}.json").json()
    assert len(last["lines"]) <= 256 * 1024
    text, start = last["lines"], last["start"]
    while start:
        before = app.get(f"{LOG}.json", params={"before": start}).json()
        text, start = before["lines"] + text, before["start"]
    assert text == whole
    text, answer = "", {"offset": 0, "more": True}
    while answer["more"]:
        answer = app.get(f"{LOG}.json", params={"offset": answer["offset"]}).json()
        text += answer["lines"]
    assert text == whole


def test_a_larger_answer_than_allowed_is_refused(running: Any, app: TestClient) -> None:
    assert app.get(f"{LOG}.json", params={"limit": 1 << 30}).status_code == 422


def test_a_waiting_shard_has_no_log_and_the_page_says_so(running: Any, app: TestClient) -> None:
    answer = app.get(f"{RUN}/shards/0/log.json").json()
    assert not answer["exists"]
    assert "waiting in the queue" in answer["shard"]["message"]
    page = app.get(f"{RUN}/shards/0/log", headers=HTML).text
    assert "There is no log yet; it begins when the job starts." in page


def test_before_the_submission_the_page_says_so(site: Any, app: TestClient) -> None:
    assert app.get(f"{LOG}.json").json()["shard"]["message"] == "not submitted yet"


def test_the_latest_attempt_is_shown_and_earlier_ones_are_listed_with_their_cause(
    running: Any, app: TestClient
) -> None:
    running.write(running.layout.attempt_record(1, 1), record(1, again=True))
    running.submitted("a2-r1", tasks=1, job_id="77")
    running.write(running.layout.attempt_log(1, 2), "again\n")
    running.squeue("77_1 RUNNING node3")
    running.write(running.layout.progress(1), progress(attempt=2, node="node3"))
    answer = app.get(f"{LOG}.json").json()
    assert (answer["attempt"], answer["lines"]) == (2, "again\n")
    told = [(one["attempt"], one["job_id"], one["state"]) for one in answer["shard"]["attempts"]]
    assert told == [(1, "56_1", "its node failed on node2"), (2, "77_1", "RUNNING")]
    assert answer["shard"]["attempts"][0]["decision"] == "again without node2"
    old = app.get(f"{LOG}.json", params={"attempt": 1}).json()
    assert old["over"]
    assert old["lines"].startswith("first\n")


def test_a_shard_between_two_attempts_is_not_over(running: Any, app: TestClient) -> None:
    running.write(running.layout.attempt_record(1, 1), record(1, again=True))
    running.squeue()
    shard = app.get(f"{LOG}.json").json()["shard"]
    assert shard["message"] == "its node failed on node2; again without node2"
    assert not shard["final"]


def test_a_part_of_a_split_run_has_its_own_indices(running: Any, app: TestClient) -> None:
    Path(running.layout.submission("a1")).unlink()
    running.submitted("a1-c0", tasks=2, job_id="60")
    running.submitted("a1-c1", tasks=1, job_id="61", first_rank=2)
    running.squeue("60_0 RUNNING node1", "60_1 RUNNING node1", "61_0 RUNNING node2")
    told = app.get(f"{RUN}/shards").json()["shards"]
    assert [(one["job_id"], one["node"]) for one in told] == [
        ("60_0", "node1"),
        ("60_1", "node1"),
        ("61_0", "node2"),
    ]


def test_a_refused_submission_is_told_in_slurms_words(running: Any, app: TestClient) -> None:
    running.submitted(job_id=None, rejected="Invalid account")
    assert app.get(f"{LOG}.json").json()["shard"]["message"] == "refused: Invalid account"


def test_a_silent_slurm_is_not_taken_for_an_end(running: Any, app: TestClient) -> None:
    running.program("squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    shard = app.get(f"{LOG}.json").json()["shard"]
    assert "Slurm does not answer: slurm_load_jobs error" in shard["message"]
    assert not shard["final"]
    assert app.get(f"{RUN}/shards").json()["alive"] is None


def test_a_silent_cluster_is_one_sentence_on_the_page(running: Any, app: TestClient) -> None:
    running.shell.cut = True
    page = app.get(LOG, headers=HTML)
    assert page.status_code == 200
    assert "The connection to the cluster broke" in page.text
    assert app.get(f"{LOG}.json").status_code == 502
    told = app.get(f"{RUN}/shards").json()
    assert told["complaint"].startswith("Test cluster: The connection")
    assert [one["task_state"] for one in told["shards"]] == ["deferred"] * 3


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (f"{RUN}/shards/3/log", "There is no shard 4; the shards of this run are 1 to 3."),
        (f"{RUN}/shards/1/log?attempt=9", "has no attempt 9; its attempts are 1."),
        ("/dags/evaluate/runs/other/shards/0/log", "has no run"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    running: Any, app: TestClient, path: str, sentence: str
) -> None:
    page = app.get(path, headers=HTML)
    assert page.status_code == 404
    assert sentence.replace("'", "&#39;") in page.text
    assert app.get(path).json()["detail"].endswith(sentence.rpartition(";")[2]) or (
        sentence in app.get(path).json()["detail"]
    )


PAGES = [
    "../../deployment",
    "shards",
    "shards/1/log",
    "shards/1/log.json",
    "shards/1/log.txt",
    "shards/1/job",
]


@pytest.mark.parametrize("page", PAGES)
def test_nobody_sees_anything_without_a_login_or_the_right(
    running: Any, app: TestClient, page: str
) -> None:
    path = f"{RUN}/{page}".replace("/runs/manual__1/../..", "")
    assert app.get(path).status_code in {200, 307}
    running.shell.commands = 0
    del app.headers["user"]
    assert app.get(path).status_code == 401
    assert app.get(path, headers={"user": "stranger"}).status_code == 403
    assert running.shell.commands == 0


def test_a_browser_without_a_login_is_led_to_it_and_back(app: TestClient) -> None:
    del app.headers["user"]
    answer = app.get(LOG, headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (307, "/auth/login?next=here")


def test_who_may_only_read_cancels_nothing(running: Any, app: TestClient) -> None:
    running.tasks("failed", "failed", "failed")
    answer = app.post(f"{RUN}/cancel", params={"rank": 1}, headers={"user": "reader"})
    assert answer.status_code == 403
    assert not running.scancelled.exists()


def test_only_what_airflow_has_ended_can_be_cancelled(running: Any, app: TestClient) -> None:
    assert app.post(f"{RUN}/cancel").status_code == 409
    running.tasks("deferred", "failed", "deferred")
    assert app.post(f"{RUN}/cancel", params={"rank": 0}).status_code == 409
    answer = app.post(f"{RUN}/cancel", params={"rank": 1})
    assert answer.json() == {"cancelled": ["56_1"]}
    assert running.scancelled.read_text() == "56_1\n"


def test_the_job_link_leads_to_the_sites_portal_where_it_has_one(
    running: Any, app: TestClient
) -> None:
    assert app.get(f"{RUN}/shards/1/job").headers["location"] == "log#job"
    links = Links(
        job="https://portal.example.org/job/{job_id}", file="https://portal.example.org/f{path}"
    )
    profile = running.profile.model_copy(update={"links": links})
    running.run = type(running.run)(
        **{
            **{name: getattr(running.run, name) for name in running.run.__slots__},
            "profile": profile,
        }
    )
    answer = app.get(f"{RUN}/shards/1/job")
    assert answer.headers["location"] == "https://portal.example.org/job/56_1"
    page = app.get(LOG, headers=HTML).text
    assert 'href="https://portal.example.org/job/56_1"' in page
    assert f'href="https://portal.example.org/f{running.layout.attempt_log(1, 1)}"' in page


def test_nothing_a_log_holds_passes_for_a_section_of_the_answer(
    running: Any, app: TestClient
) -> None:
    running.write(running.layout.progress(1), json.dumps(progress()) + "\n\n@0 end\n@0 queue 1\n")
    assert app.get(f"{RUN}/shards").json()["shards"][1]["state"] == "running"
