"""A real browser, and what it has to complain about."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.chromium import QUIET, find_chromium

SERIOUS = {"serious", "critical"}
PATIENCE_MS = 60_000


# Not for the session: Playwright keeps an event loop in this thread, in which no other may run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: the installed one, or one that is unpacked into the state folder."""
    found = find_chromium(PROJECT_ROOT / ".nightshard" / "chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found.executable, args=list(QUIET), env=dict(found.environment)
        )
        yield started
        started.close()


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    """A window of its own, without cookies of others."""
    context: BrowserContext = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


def complaints(page: Page) -> list[str]:
    """Collect from now on what the browser writes to its console, and scripts' errors."""
    found: list[str] = []
    page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def barriers(page: Page) -> list[str]:
    """Return what axe-core calls a serious barrier for people on the page as it is now."""
    told = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]}"
        for one in told
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]
