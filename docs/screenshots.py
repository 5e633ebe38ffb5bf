"""Take the pictures of these pages from a running quickstart: ``python docs/screenshots.py``.

Nothing leaves this machine. A run's id as argument chooses another than the newest run.
"""

import os
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from nightshard.cli.api import DAG_ID, AirflowApi
from nightshard.cli.local import local_api_access
from nightshard.core.settings import Settings
from nightshard.local.chromium import QUIET, find_chromium

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1400, "height": 900}


def main() -> None:
    """Log in and photograph Airflow's pages and our own."""
    settings = Settings.from_env(os.environ)
    access = local_api_access(settings)
    if access is None:
        sys.exit("Start `make quickstart` first.")
    found = find_chromium(settings.state / "chromium")
    api = AirflowApi(access["url"], access["username"], access["password"])
    run_id = sys.argv[1] if len(sys.argv) > 1 else api.newest_run()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.executable, args=list(QUIET), env=dict(found.environment)
        )
        page = logged_in(browser, access, "light")
        dag = f"{access['url']}/dags/{DAG_ID}"
        shoot(page, f"{dag}/runs/{run_id}", "text=record", "quickstart-grid.png")
        shoot(page, f"{dag}/runs/{run_id}/tasks/shard/mapped/0", "text=answers", "shard-log.png")
        page.goto(f"{dag}")
        page.click("text=Trigger")
        page.click("text=What to evaluate")
        page.wait_for_selector("text=Hub id")
        page.wait_for_timeout(500)  # the form slides in
        page.screenshot(path=IMAGES / "form.png")
        night(page, access["url"])
        shoot(page, f"{access['url']}/plugin/leaderboard", "text=Browse", "in-airflow.png")
        for scheme in ("light", "dark"):
            results(logged_in(browser, access, scheme), f"{access['url']}/nightshard", scheme)
        browser.close()


def night(page: Page, airflow: str) -> None:
    """Photograph the newest run of ``nightly``, where there is one, and the form of a backfill."""
    page.goto(f"{airflow}/dags/nightly/runs")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    runs = page.locator('a[href*="/dags/nightly/runs/"]')
    if not runs.count():
        return
    address = str(runs.first.get_attribute("href"))
    shoot(page, f"{airflow}{address}", "text=report", "nightly-run.png")
    page.goto(f"{airflow}/dags/nightly")
    page.click("text=Trigger")
    page.click("text=Run this Dag for a range of dates")
    page.wait_for_timeout(700)  # the form slides in
    page.screenshot(path=IMAGES / "backfill.png")


def logged_in(browser: Browser, access: dict[str, str], scheme: str) -> Page:
    """Open a window in which the local Airflow's user is logged in."""
    page = browser.new_page(viewport=SIZE, color_scheme=scheme)
    page.goto(f"{access['url']}/auth/login")
    page.fill('input[name="username"]', access["username"])
    page.fill('input[name="password"]', access["password"])
    page.click('button[type="submit"]')
    page.wait_for_selector("text=Dags")
    return page


def results(page: Page, pages: str, scheme: str) -> None:
    """Photograph the result pages, of the newest run that is on the leaderboard."""
    shoot(page, f"{pages}/", "h1", f"pages-leaderboard-{scheme}.png")
    page.click("tbody a >> nth=0")
    shoot(page, page.url, "h1", f"pages-run-{scheme}.png")
    page.click("p >> a:has-text('Answers')")
    shoot(page, page.url, "tbody", f"pages-answers-{scheme}.png")
    page.click("tbody a >> nth=0")
    shoot(page, page.url, "h2", f"pages-answer-{scheme}.png")


def shoot(page: Page, address: str, appears: str, name: str) -> None:
    """Open an address, wait until something shows, and keep the picture."""
    page.goto(address)
    page.wait_for_selector(appears)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
