"""A person's path through every result page, in a real browser, light and dark."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page
from support.browser import barriers, complaints
from support.evaluated import HOSTILE, example_results

from nightshard.web.serve import serving_app
from nightshard.web.source import Source

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The pages of some runs, served as `nightshard serve` does."""
    folder: Path = tmp_path_factory.mktemp("results")
    results = example_results(folder)
    app = serving_app(Source(results.database_url, results.store), "127.0.0.1", None)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    started = threading.Event()
    startup = server.startup

    async def tell(sockets: object = None) -> None:
        await startup(sockets)  # type: ignore[arg-type]
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(color_scheme=request.param)
    yield context.new_page()
    context.close()


def test_a_persons_path_through_every_page(address: str, page: Page) -> None:
    said, asked = complaints(page), []
    page.on("request", lambda one: asked.append(one.url))

    def arrived(heading: str) -> None:
        page.wait_for_selector(f"h1:has-text('{heading}')")
        page.wait_for_load_state("networkidle")
        assert barriers(page) == []

    page.goto(f"{address}/")
    arrived("Leaderboard")
    page.click("th >> text=MATH500")
    page.wait_for_selector("th[aria-sort=descending] >> text=MATH500")
    page.fill("input[name=model]", "run7")
    page.click("text=Show")
    page.wait_for_selector("text=3 checkpoints")
    kept = page.url
    page.goto("about:blank")
    page.goto(kept)  # somebody was sent the link
    page.wait_for_selector("th[aria-sort=descending] >> text=MATH500")
    assert page.locator("tbody tr").count() == 3

    page.click("text=curve >> nth=0")
    arrived("Scores over training")
    assert page.evaluate("document.querySelector('img.plot').naturalWidth") > 100
    page.click("a:has-text('run-300') >> nth=0")
    arrived("checkpoint-300")
    page.click("summary >> text=Attempts")
    page.wait_for_selector("td >> text=node failure")
    page.click("p >> a:has-text('Answers')")
    arrived("Answers")
    page.select_option("select[name=correct]", "no")
    page.click("text=Show")
    page.wait_for_selector("text=12 answers")
    page.click("tbody a >> nth=0")
    arrived("MATH500 p34")

    page.click("nav >> text=Compare")
    arrived("Compare two runs")
    page.fill("input[name=first]", "run-100")
    page.fill("input[name=second]", "run-300")
    page.click("button:has-text('Compare')")
    page.wait_for_selector("text=better")
    page.click("text=changed sides >> nth=0")
    arrived("Answers")
    page.click("tbody a >> nth=0")
    page.wait_for_selector("h2 >> text=Answer beside")
    assert barriers(page) == []
    page.click("nav >> text=Scaling")
    arrived("Scaling")
    page.click("nav >> text=Runs")
    arrived("Runs")
    assert said == []
    assert all(url.startswith((address, "data:", "about:")) for url in asked)


def test_a_hostile_answer_shows_as_text(address: str, page: Page, tmp_path: Path) -> None:
    said = complaints(page)
    page.goto(f"{address}/runs/run-other/samples?problem=p00")
    page.click("tbody a >> nth=0")
    page.wait_for_selector("h1:has-text('MATH500 p00')")
    shown = page.locator("[aria-label='Answer: text']")
    assert "<script>document.title='owned'</script>" in shown.inner_text()
    assert "**bold** [link](javascript:alert(1)) ⟨U+001B⟩[31mred" in shown.inner_text()
    assert shown.locator("script, img, a, b").count() == 0
    assert shown.locator("math").count() == 2
    assert shown.locator("span[class^=h-]").count() > 0
    page.click("summary >> text=As it was written")
    written = page.locator("details pre").inner_text()
    assert "\\[\\href{javascript:alert(1)}{\\sqrt{2}}\\]" in written
    assert page.title() == "MATH500 p00"
    assert barriers(page) == []
    assert said == []
    assert HOSTILE.splitlines()[0] in written


def test_the_pages_need_no_script(address: str, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/runs/run-300/samples?correct=no")
    page.wait_for_selector("text=12 answers")
    context.close()
