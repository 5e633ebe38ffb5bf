"""The result pages inside Airflow, after a real run: its login, its navigation, its run's tab."""

import httpx
import pytest
from playwright.sync_api import Page
from support.browser import barriers, complaints
from support.stack import FinishedRun, Stack

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def run(stack: Stack) -> FinishedRun:
    """A scored run of two shards."""
    done = stack.run({"tasks": ["Starter"], "num_shards": 2, "limit": 6, "seed": 77})
    assert done.state == "success"
    return done


def log_in(stack: Stack, page: Page) -> None:
    page.fill('input[name="username"]', stack.airflow.username)
    page.fill('input[name="password"]', stack.airflow.password)
    page.click('button[type="submit"]')


def test_a_person_goes_from_the_leaderboard_to_one_answer(
    stack: Stack, run: FinishedRun, browser_page: Page
) -> None:
    said = complaints(browser_page)
    pages = f"{stack.airflow.url}/nightshard"
    browser_page.goto(f"{pages}/?model=tiny&sort=Starter")
    log_in(stack, browser_page)
    browser_page.wait_for_url("**/nightshard/?model=tiny&sort=Starter")  # where it was going
    browser_page.goto(f"{pages}/runs/{run.summary()['run_key']}")
    browser_page.wait_for_selector("h2 >> text=Scores")
    assert barriers(browser_page) == []
    browser_page.click("p >> a:has-text('Answers')")
    browser_page.wait_for_selector("text=6 answers")
    browser_page.click("tbody a >> nth=0")
    browser_page.wait_for_selector("h2 >> text=Question")
    browser_page.goto(f"{pages}/dags/evaluate/runs/{run.run_id}")
    browser_page.wait_for_selector("text=6 of 6 answers")
    assert browser_page.locator("#shards tbody tr").count() == 2
    assert barriers(browser_page) == []
    assert said == []


def test_airflow_shows_the_pages_in_its_own(
    stack: Stack, run: FinishedRun, browser_page: Page
) -> None:
    browser_page.goto(f"{stack.airflow.url}/auth/login")
    log_in(stack, browser_page)
    browser_page.wait_for_selector("text=Dags")
    browser_page.goto(f"{stack.airflow.url}/plugin/leaderboard")
    inside = browser_page.frame_locator("iframe")
    inside.locator("h1:has-text('Leaderboard')").wait_for()
    inside.locator("nav >> text=Runs").click()
    inside.locator("h1:has-text('Runs')").wait_for()
    browser_page.goto(f"{stack.airflow.url}/dags/evaluate/runs/{run.run_id}/plugin/shards")
    inside = browser_page.frame_locator("iframe")
    inside.locator("text=6 of 6 answers").wait_for()
    inside.locator("a >> text=Scores").click()
    inside.locator("h2 >> text=Scores").wait_for()
    inside.locator("a >> text=In Airflow").click()  # and not into the frame
    browser_page.wait_for_url(f"**/dags/evaluate/runs/{run.run_id}")


def test_nothing_is_shown_without_a_login(stack: Stack, run: FinishedRun) -> None:
    pages = f"{stack.airflow.url}/nightshard"
    for path in ("/", "/api/leaderboard", "/api/openapi.json", "/runs", "/compare"):
        assert httpx.get(f"{pages}{path}", timeout=60).status_code == 401
