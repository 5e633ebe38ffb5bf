"""The result pages and their JSON: what they show, who may see them, and that links keep state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from support.evaluated import HOSTILE, Results, example_results

from nightshard.core.errors import UserError
from nightshard.web.serve import check_binding, serving_app
from nightshard.web.source import Source

pytestmark = pytest.mark.unit

HTML = {"accept": "text/html"}
TOKEN = "an-example-token-of-32-characters"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return example_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def pages(results: Results) -> TestClient:
    app = serving_app(Source(results.database_url, results.store), "127.0.0.1", None)
    return TestClient(app, base_url="http://localhost", headers=HTML)


@pytest.fixture(scope="module")
def guarded(results: Results) -> TestClient:
    app = serving_app(Source(results.database_url, results.store), "0.0.0.0", TOKEN)
    return TestClient(app, follow_redirects=False)


def test_the_board_has_each_checkpoints_latest_score(pages: TestClient) -> None:
    board = pages.get("/api/leaderboard").json()
    assert board["benchmarks"] == ["AMC23", "MATH500"]
    assert [row["run_key"] for row in board["rows"]] == [
        *("run-other-4", "run-300", "run-200", "run-100")
    ]
    cell = board["rows"][1]["cells"]["MATH500"]
    assert (cell["value"], cell["n"], cell["coverage"]) == (0.85, 40, 1.0)
    assert cell["ci_low"] < 0.85 < cell["ci_high"]


@pytest.mark.parametrize(
    ("query", "models"),
    [
        (
            "sort=MATH500",
            ["org/<b>other</b>", "checkpoint-300", "checkpoint-200", "checkpoint-100"],
        ),
        ("sort=AMC23&order=asc", ["checkpoint-100", "checkpoint-200", "checkpoint-300"]),
        ("sort=mean&benchmark=AMC23", ["checkpoint-300", "checkpoint-200", "checkpoint-100"]),
        ("model=RUN7&sort=step&order=asc", ["checkpoint-100", "checkpoint-200", "checkpoint-300"]),
        ("show=latest&model=run7", ["checkpoint-300"]),
        ("show=best&benchmark=MATH500", ["org/<b>other</b>", "checkpoint-300"]),
        ("metric=truncation_rate&model=other", ["org/<b>other</b>"]),
        ("metric=no-such-metric", []),
    ],
)
def test_the_board_is_filtered_and_sorted_by_its_address(
    pages: TestClient, query: str, models: list[str]
) -> None:
    rows = pages.get(f"/api/leaderboard?{query}").json()["rows"]
    known = [row["model"] for row in rows]
    assert known[: len(models)] == models
    assert pages.get(f"/?{query}").status_code == 200


def test_a_model_that_misses_a_benchmark_has_no_mean_and_comes_last(pages: TestClient) -> None:
    rows = pages.get("/api/leaderboard?sort=AMC23").json()["rows"]
    assert rows[-1]["model"] == "org/<b>other</b>"


def test_a_board_that_is_sorted_anew_keeps_its_filters(pages: TestClient) -> None:
    text = pages.get("/?model=check&benchmark=MATH500&sort=MATH500").text
    assert 'href="?model=check&amp;benchmark=MATH500&amp;sort=MATH500&amp;order=asc"' in text
    assert 'aria-sort="descending"' in text


def test_a_familys_curve_has_a_point_a_step(pages: TestClient) -> None:
    curves = pages.get("/api/curves?family=run7&benchmark=MATH500").json()
    (curve,) = curves
    assert [(step, cell["value"]) for step, cell in curve["points"]] == [
        (100, 0.3),
        (200, 0.55),
        (300, 0.85),
    ]
    plot = pages.get("/curves.svg?family=run7")
    assert plot.headers["content-type"] == "image/svg+xml"
    assert ">MATH500</text>" in plot.text


def test_a_runs_page_tells_its_scores_its_time_and_what_went_wrong(pages: TestClient) -> None:
    text = pages.get("/runs/run-300").text
    for said in (
        "0.850",
        "0.707 to 0.930",
        "0.05 h",
        "its node failed on node1",
        "again without node1",
        "nightshard launch --model-name /scratch/run7/checkpoint-300",
        '"contract_version": 2',
    ):
        assert said in text, said
    assert text.count('class="f-generate"') == 3  # a bar a shard, and one in the key


def test_answers_are_filtered_by_what_the_judge_said_and_by_text(pages: TestClient) -> None:
    def total(query: str) -> int:
        return int(pages.get(f"/api/runs/run-300/samples?{query}").json()["total"])

    assert total("") == 80
    assert total("benchmark=AMC23") == 40
    assert total("correct=no") == 12
    assert total("correct=no&benchmark=MATH500&problem=p39") == 1
    assert total("truncated=yes") == total("error=yes") == 0
    assert total("truncated=no&error=no") == 80
    assert total("text=BOXED{7}") == 2
    assert total("text=%25") == 0  # no wildcard


def test_two_runs_side_by_side_show_the_problems_that_changed_sides(pages: TestClient) -> None:
    query = "beside=run-200&changed=yes&benchmark=MATH500"
    found = pages.get(f"/api/runs/run-300/samples?{query}").json()
    assert [row["problem_id"] for row in found["rows"]] == [f"p{n}" for n in range(22, 34)]
    assert all(row["correct"] and not row["correct_beside"] for row in found["rows"])
    one = found["rows"][0]["request_id"]
    text = pages.get(f"/runs/run-300/samples/{one}?beside=run-200").text
    assert "Answer beside" in text
    assert "\\boxed{23}" in text


def test_one_answer_has_its_question_its_gold_and_its_neighbours(pages: TestClient) -> None:
    rows = pages.get("/api/runs/run-other/samples").json()["rows"]
    second = pages.get(f"/api/runs/run-other/samples/{rows[1]['request_id']}").json()
    assert (second["previous"], second["next"]) == (rows[0]["request_id"], rows[2]["request_id"])
    assert second["gold"] == "1"
    assert "How much is $1 + 0$?" in second["messages"][0]["content"]
    assert second["extracted"] == "1"


def test_answers_that_are_judged_again_are_read_again(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add("a", "org/a", lambda n: f"\\boxed{{{n}}}")
    client = TestClient(
        serving_app(Source(results.database_url, results.store), "127.0.0.1", None),
        base_url="http://localhost",
    )
    assert client.get("/api/runs/a/samples?correct=yes").json()["total"] == 40
    results.add("a", "org/a", lambda n: "\\boxed{-1}")
    assert client.get("/api/runs/a/samples?correct=yes").json()["total"] == 0


def test_a_comparison_leads_to_the_answers_that_changed(pages: TestClient) -> None:
    text = pages.get("/compare?first=run-100&second=run-300").text
    assert '<span class="good">better</span>' in text
    assert "+0.550" in text
    assert "/runs/run-300/samples?benchmark=MATH500&amp;beside=run-100&amp;changed=yes" in text


def test_runs_with_several_shard_counts_make_a_scaling_plot(pages: TestClient) -> None:
    (group,) = pages.get("/api/scaling").json()
    assert [
        (one["shards"], one["wall_seconds"], one["gpu_seconds"]) for one in group["points"]
    ] == [
        (1, 600.0, 60.0),
        (4, 150.0, 420.0),
    ]
    assert "GPU hours" in pages.get("/scaling.svg?number=1").text
    assert pages.get("/scaling.svg?number=2").status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/runs/run-30", 404, "did you mean run-300"),
        ("/api/runs/run-300/samples/none", 404, "has no answer to the request 'none'"),
        ("/api/runs/no-run/samples", 404, "not scored yet, or its files were removed"),
        ("/api/compare?first=run-100&second=no-run", 404, "is not there"),
        ("/api/leaderboard?page=0", 422, "page cannot be used"),
        ("/api/runs/a%2F..%2Fb", 404, "Not Found"),
        ("/api/runs/-a", 422, "run_key cannot be used"),
    ],
)
def test_what_is_not_there_or_not_understood_gets_one_sentence(
    pages: TestClient, path: str, status: int, says: str
) -> None:
    answer = pages.get(path, headers={"accept": "application/json"})
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_model_output_is_shown_and_never_interpreted(pages: TestClient) -> None:
    first = pages.get("/api/runs/run-other/samples").json()["rows"][0]["request_id"]
    for path in ("/runs/run-other/samples", f"/runs/run-other/samples/{first}", "/", "/runs"):
        answer = pages.get(path)
        assert "<script>document.title" not in answer.text
        assert "<b>other" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert pages.get(f"/api/runs/run-other/samples/{first}").json()["text"] == HOSTILE


def routes(client: TestClient) -> Iterator[tuple[str, str]]:
    """Every method and path that the app serves, with values in place of parameters."""
    app: Any = client.app
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if isinstance(route, APIRoute):
            path = route.path.replace("{rank}", "0")
            for name in route.param_convertors:
                path = path.replace(f"{{{name}}}", "x")
            for method in route.methods:
                yield method, path
        elif inner is not None:
            waiting += inner.routes
        else:
            raise AssertionError(f"a kind of route that is not known: {route!r}")


def test_no_route_answers_without_the_token(guarded: TestClient) -> None:
    found = set(routes(guarded))
    assert len(found) > 15
    assert ("GET", "/api/openapi.json") in found
    for method, path in found - {("GET", "/login"), ("POST", "/login")}:
        answer = guarded.request(method, path)
        assert (answer.status_code, "token" in answer.json()["detail"]) == (401, True), path
        wrong = guarded.request(method, path, headers={"authorization": f"Bearer {TOKEN}x"})
        assert wrong.status_code == 401


def test_no_route_inside_airflow_answers_without_its_login(app: TestClient) -> None:
    found = set(routes(app))
    assert len(found) > 20
    for method, path in found:
        assert app.request(method, path, headers={"user": ""}).status_code == 403, path
        del app.headers["user"]
        assert app.request(method, path).status_code == 401, path
        app.headers["user"] = "admin"


def test_the_results_inside_airflow_want_a_right_of_their_own(app: TestClient) -> None:
    assert app.get("/api/leaderboard", headers={"user": "seer"}).status_code == 200
    assert app.get("/api/leaderboard", headers={"user": "reader"}).status_code == 403


def test_a_person_logs_in_with_the_token_once(guarded: TestClient) -> None:
    assert guarded.get("/", headers=HTML).headers["location"] == "/login"
    assert "Token" in guarded.get("/login", headers=HTML).text
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 401
    answer = guarded.post("/login", data={"token": TOKEN})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.headers["location"] == "/"
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert guarded.get("/", headers=HTML).status_code == 200
    guarded.cookies.clear()


def test_a_program_says_the_token_in_a_header(guarded: TestClient) -> None:
    answer = guarded.get("/api/runs", headers={"authorization": f"Bearer {TOKEN}"})
    assert len(answer.json()) == 5


def test_on_loopback_another_hosts_name_is_refused(pages: TestClient) -> None:
    assert pages.get("/", headers={"host": "attacker.example"}).status_code == 400


@pytest.mark.parametrize(
    ("host", "token", "says"),
    [
        ("0.0.0.0", None, "set NIGHTSHARD_SERVE_TOKEN"),
        ("host.example", None, "everyone on the network"),
        ("127.0.0.1", "short", "choose a longer one"),
    ],
)
def test_results_are_not_shown_to_a_network_without_a_token(
    host: str, token: str | None, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        check_binding(host, token)
    check_binding("localhost", None)
    check_binding("::1", None)
    check_binding(host, TOKEN)
