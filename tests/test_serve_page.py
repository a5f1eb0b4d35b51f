"""The page in a real browser, on a real server that watches with the built-in model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("selenium")

import httpx
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from .chromium import complaints, measure
from .page_browser import Page
from .page_serving import WORLD

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver


@pytest.fixture
def page(driver: WebDriver, url: str) -> Iterator[Page]:
    measure(driver, 1280, 900)
    yield Page(driver, url).open()
    assert complaints(driver) == []


def test_the_live_picture_moves_and_shows_what_the_model_did(page: Page) -> None:
    first = page.until_pictured()
    assert first.startswith("blob:")
    page.until(lambda: page.until_pictured() != first, "another picture")
    told = page.until(lambda: page.text("#told-recomputed"), "the count of patches")
    num_recomputed, num_patches = map(int, re.fullmatch(r"(\d+) of (\d+) patches recomputed", told).groups())  # type: ignore[union-attr]
    overlay = page.get("/v1/streams/front-door/overlay")
    assert num_patches == overlay["rows"] * overlay["columns"] and 0 <= num_recomputed <= num_patches
    assert page.js("return document.querySelector('.layer.recomputed').getAttribute('viewBox')") == (
        f"0 0 {overlay['columns']} {overlay['rows']}"
    )
    page.until(lambda: re.match(r"\d+ of \d+ tokens kept", page.text("#told-kept")), "the count of tokens")
    tinted = "return document.querySelector('.layer.recomputed .area')?.getAttribute('d')"
    page.until(lambda: page.js(tinted), "a tinted patch")
    for name in ("recomputed", "kept"):
        layer = page.one(f".layer.{name}")
        page.one(f"#show-{name}").click()
        assert not layer.is_displayed()
        page.one(f"#show-{name}").click()


def test_every_stream_has_a_picture_and_can_be_looked_at(page: Page) -> None:
    page.until(lambda: len(page.all("#streams img:not([hidden])")) == 2, "a small picture of both")
    assert [name.text for name in page.all(".stream-name")] == ["front-door", "yard"]
    page.all(".stream")[1].click()
    page.until(lambda: page.text("#stream-name") == "yard", "the other stream")
    page.until_pictured()
    assert page.driver.title == "yard · Millpond"
    assert [one.get_attribute("aria-current") for one in page.all(".stream")] == ["false", "true"]
    page.driver.refresh()
    page.until(lambda: page.text("#stream-name") == "yard", "the same stream after a reload")


def test_a_stream_that_is_added_is_shown_and_its_narration_comes_as_its_log_has_it(page: Page) -> None:
    lively = {"id": "lively", "source": WORLD.format(seed=9, duration_s=180), "as_live": True}
    httpx.post(f"{page.url}/v1/streams", json=lively, timeout=60, trust_env=False).raise_for_status()
    page.until(lambda: len(page.all(".stream")) == 3, "the stream that was added")
    page.all(".stream")[2].click()
    page.until(lambda: page.all("#narration li"), "a first narration")
    num_first = len(page.all("#narration li"))
    page.until(lambda: len(page.all("#narration li")) > num_first, "another narration, without a reload")
    code = """return [...document.querySelectorAll('#narration li')].map((li) => [Number(li.dataset.number),
        li.querySelector('.told p').lastChild.textContent])"""
    shown = page.js(code)
    assert shown == sorted(shown, reverse=True)
    rows = {row["number"]: row["text"] for row in page.get("/v1/streams/lively/events")["data"]}
    assert dict(map(tuple, shown)).items() <= rows.items()
    assert page.one("#narration-log").get_attribute("aria-live") == "polite"
    httpx.delete(f"{page.url}/v1/streams/lively", timeout=60, trust_env=False).raise_for_status()
    page.until(lambda: page.text("#stream-name") == "front-door", "another stream, once this one is gone")


def test_an_answer_comes_with_links_to_the_keyframes_of_its_spans(page: Page) -> None:
    page.until_pictured()
    entry = page.ask("What is there?")
    assert entry.get_attribute("data-state") == "answered", entry.text
    assert entry.find_element(By.CSS_SELECTOR, ".answer-text").text.strip()
    assert entry.find_element(By.CSS_SELECTOR, ".asked-words").text == "What is there?"
    assert re.search(r"Seen until \d+:\d\d", entry.text)
    assert entry.find_element(By.CSS_SELECTOR, ".answer").get_attribute("aria-busy") == "false"
    links = entry.find_elements(By.CSS_SELECTOR, "a.span")
    assert links
    for link in links:
        assert re.search(r"/v1/streams/front-door/frames/[\d.]+\.jpg$", link.get_attribute("href") or "")
        page.until(lambda link=link: link.find_element(By.TAG_NAME, "img").is_displayed(), "a small keyframe")
    links[0].send_keys(Keys.ENTER)
    shown = "const i = document.getElementById('viewer-picture'); return !i.hidden && i.naturalWidth > 100"
    page.until(lambda: page.js(shown), "the keyframe")
    assert page.one("#viewer").is_displayed() and page.text("#viewer-title").endswith("of front-door")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.one("#viewer").is_displayed(), "the end of the keyframe's window")
    assert page.driver.switch_to.active_element == links[0]


def test_the_timeline_has_the_events_the_change_and_every_tier(page: Page) -> None:
    page.until(lambda: page.all("#event-bars .bar"), "a bar for an event")
    tiers = page.get("/v1/streams/front-door")["bytes_by_tier"]
    lanes = {"events", "change", *tiers}
    drawn = "return [...document.querySelectorAll('.lane[data-lane]')].map((lane) => lane.dataset.lane)"
    page.until(lambda: set(page.js(drawn)) == lanes, f"lanes of {sorted(lanes)}")
    for name in lanes - {"events"}:
        line = f"[data-lane='{name}'] .line"
        page.until(lambda line=line: "L" in (page.one(line).get_attribute("d") or ""), f"a line of {name}")
    assert re.fullmatch(r"[\d.]+ %(, at most [\d.]+ %)?", page.text("[data-lane='change'] .lane-value"))
    for name in tiers:
        assert re.search(r"^[\d.]+ [KMG]?i?B", page.text(f"[data-lane='{name}'] .lane-value"))
    page.until(lambda: len(page.all("#event-bars .bar")) >= 2, "a second event")
    lane = page.one("#event-lane")
    lane.send_keys(Keys.HOME)
    first = lane.get_attribute("aria-valuetext")
    lane.send_keys(Keys.ARROW_RIGHT)
    second = lane.get_attribute("aria-valuetext")
    assert first != second and lane.get_attribute("aria-valuenow") == "2"
    page.until(lambda: page.js("return document.querySelectorAll('.bar.is-chosen').length") == 1, "the chosen event")
    lane.send_keys(Keys.ENTER)
    page.until(lambda: page.one("#viewer-picture").is_displayed(), "the event's keyframe")
    page.press(Keys.ESCAPE)


def test_everything_is_done_by_keyboard_alone(page: Page) -> None:
    page.until_pictured()
    page.until(lambda: page.all("#narration a"), "a narration")
    page.press(Keys.TAB)
    assert page.driver.switch_to.active_element.get_attribute("class") == "skip"
    page.press(Keys.ENTER)
    page.until(lambda: page.driver.switch_to.active_element.get_attribute("id") == "question", "the question box")
    page.js("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.open()
    page.until(lambda: len(page.all(".stream")) == 2, "the streams")
    stops: list[str] = []
    for _ in range(40):
        page.press(Keys.TAB)
        here = page.driver.switch_to.active_element
        told = here.get_attribute("id") or here.get_attribute("class") or here.tag_name
        if told == "stream" and stops.count("stream") == 1:
            page.press(Keys.ENTER)
            page.until(lambda: page.text("#stream-name") == "yard", "the second stream")
        if told == "question":
            page.press("What is there?", Keys.ENTER)
            page.until(lambda: page.one(".entry").get_attribute("data-state") == "answered", "an answer")
        if told != "body":
            assert has_ring(page), f"nobody sees that {told} has the focus"
        stops.append(told)
        if told == "event-lane":
            break
    for needed in ("skip", "stream", "show-recomputed", "show-kept", "question", "ask-button", "span", "event-lane"):
        assert needed in stops, f"{needed} is not reached; {stops}"


def has_ring(page: Page) -> bool:
    """Whether what has the focus has an outline, itself or beside it."""
    code = """const at = document.activeElement, ring = (n) => n && getComputedStyle(n).outlineStyle !== 'none';
        return ring(at) || ring(at.nextElementSibling)"""
    return bool(page.js(code))
