"""Take the pictures of these pages from a running quickstart: ``python docs/screenshots.py``.

Needs Chromium (Debian's package ``chromium``); nothing leaves this machine.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from nightshard.cli.api import DAG_ID, AirflowApi
from nightshard.cli.local import local_api_access
from nightshard.core.settings import Settings

IMAGES = Path(__file__).parent / "images"
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def main() -> None:
    """Log in and photograph the grid, a shard's log and the form."""
    access = local_api_access(Settings.from_env(os.environ))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if access is None or chromium is None:
        sys.exit("Start `make quickstart` first, and install Debian's package chromium.")
    api = AirflowApi(access["url"], access["username"], access["password"])
    run_id = sys.argv[1] if len(sys.argv) > 1 else api.newest_run()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{access['url']}/auth/login")
        page.fill('input[name="username"]', access["username"])
        page.fill('input[name="password"]', access["password"])
        page.click('button[type="submit"]')
        page.wait_for_url(f"{access['url']}/**")
        dag = f"{access['url']}/dags/{DAG_ID}"
        shoot(page, f"{dag}/runs/{run_id}", "text=record", "quickstart-grid.png")
        shoot(page, f"{dag}/runs/{run_id}/tasks/shard/mapped/0", "text=answers", "shard-log.png")
        page.goto(f"{dag}")
        page.click("text=Trigger")
        page.click("text=What to evaluate")
        page.wait_for_selector("text=Hub id")
        page.wait_for_timeout(500)  # the form slides in
        page.screenshot(path=IMAGES / "form.png")
        browser.close()


def shoot(page: Page, address: str, appears: str, name: str) -> None:
    """Open an address, wait until something shows, and keep the picture."""
    page.goto(address)
    page.wait_for_selector(appears)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
