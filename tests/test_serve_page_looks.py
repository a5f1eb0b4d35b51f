"""How the page looks: at every width, in dark and light, and to whoever cannot see it.

With MILLPOND_PICTURES=docs in the environment, what it looks like is kept there as well, for the README.
"""

from __future__ import annotations

import io
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("selenium")

from .chromium import complaints, look_as, measure, shot
from .page_browser import Page
from .page_serving import settings_of
from .serve_server import served

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

PICTURES = os.environ.get("MILLPOND_PICTURES")
MOST_BYTES = 200_000
# Streams and their seeds: things come one after another in these worlds, and there is no noise in them.
PICTURED = {"front-door": 228, "yard": 100, "loading-bay": 194}
# What is stored: (width, height, dark).
LOOKS = {"page-light": (1280, 1120, False), "page-dark": (1280, 1120, True), "page-phone": (360, 780, False)}


@pytest.fixture
def page(driver: WebDriver, url: str) -> Page:
    return Page(driver, url)


def full(page: Page) -> None:
    """Waits until every part of the page has something in it."""
    page.open()
    page.until_pictured()
    page.ask("What is there?")
    page.until(lambda: page.all("#narration li"), "a narration")
    page.until(lambda: page.all("[data-lane='T1'] .line"), "the lane of a tier")


def test_nothing_is_wider_than_the_window(page: Page) -> None:
    measure(page.driver, 360, 800)
    full(page)
    code = """const over = [...document.body.querySelectorAll('*')].filter((n) => n.checkVisibility() &&
        !n.closest('.strip, .unseen, .skip, svg') && n.getBoundingClientRect().right > innerWidth + 1);
        return [document.documentElement.scrollWidth, over.map((n) => n.className || n.id || n.tagName)]"""
    for width in (320, 360, 414, 640, 800, 992, 1280, 1920):
        measure(page.driver, width, 800)
        page.until(lambda width=width: page.js("return innerWidth") == width, f"a window of {width} pixels")
        assert page.js(code) == [width, []]


@pytest.mark.parametrize("name", LOOKS)
def test_nothing_keeps_anybody_from_using_it(page: Page, name: str) -> None:
    """By the rules of axe-core, which know contrast, names, roles and landmarks."""
    width, height, dark = LOOKS[name]
    measure(page.driver, width, height)
    look_as(page.driver, dark=dark)
    full(page)
    grounds = page.js("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, grounds.removeprefix("rgb(").rstrip(")").split(","))) < 200) == dark
    for part in ("page", "viewer"):
        if part == "viewer":
            page.one("a.span, #narration a").click()
            page.until(lambda: page.one("#viewer-picture").is_displayed(), "a keyframe")
        assert broken_rules(page) == [], part
    assert complaints(page.driver) == []


def broken_rules(page: Page) -> list[str]:
    found = find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no axe-core here; pip install axe-playwright-python")
    page.js(Path(found.submodule_search_locations[0], "axe.min.js").read_text())
    code = """const done = arguments[0];
        axe.run().then(done, (error) => done({passes: [], violations: [{help: `${error}`, nodes: []}]}))"""
    told = page.driver.execute_async_script(code)  # type: ignore[no-untyped-call]
    assert len(told["passes"]) >= 10, told["violations"]
    return [f"{one['help']}: {[node['target'] for node in one['nodes']]}" for one in told["violations"]]


def hold(page: Page) -> None:
    """Keeps a picture in which something moved: no other comes after it."""

    def moved() -> bool:
        return 3 <= int(page.text("#told-recomputed").partition(" ")[0]) <= 70

    page.driver.execute_cdp_cmd("Network.enable", {})
    until_s = time.monotonic() + 45
    while time.monotonic() < until_s:
        if moved():
            page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/overlay", "*/snapshot.jpg"]})
            time.sleep(1)
            if moved():
                return
            page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        time.sleep(0.05)


@pytest.mark.skipif(PICTURES is None, reason="pictures are taken with MILLPOND_PICTURES=docs")
def test_pictures_for_the_readme(driver: WebDriver) -> None:
    from PIL import Image

    settings = settings_of(tuple(PICTURED))
    settings["model"] = {"fps": 1.0, "compressor": {"name": "vidcom2", "keep_tokens": 16}}
    for stream in settings["streams"]:
        stream["source"] = f"synthetic://shapes?seed={PICTURED[stream['id']]}&duration_s=120"
    with served(settings) as server:
        page = Page(driver, server.url)
        measure(driver, 1280, 1120)
        page.open().until_pictured()
        seen = "return Number(document.querySelector('#num-frames').textContent)"
        page.until(lambda: page.js(seen) > 60, "lanes that have something to show")
        page.ask("Where is the purple triangle?")
        page.ask("What happened in the video?")
        hold(page)
        assert page.text("#stream-state").startswith("Live"), "too slow: the streams ended before"
        for name, (width, height, dark) in LOOKS.items():
            measure(driver, width, height)
            look_as(driver, dark=dark)
            page.js("document.activeElement.blur(); window.scrollTo(0, 0)")
            time.sleep(3)
            picture = Image.open(io.BytesIO(shot(driver))).convert("RGB")
            to = Path(str(PICTURES), f"{name}.png")
            picture.quantize(256, dither=Image.Dither.NONE).save(to, optimize=True)
            assert to.stat().st_size < MOST_BYTES
