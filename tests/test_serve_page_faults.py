"""The page when things go wrong: a server that dies and returns, a token that is wanted, words that would be HTML."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from millpond.pipeline.answer import Answer, Timing
from millpond.pipeline.question import Question
from millpond.pipeline.serve import streams as streams_module
from millpond.pipeline.serve.streams import Streams
from millpond.stream import Span

from .chromium import chromium, complaints
from .page_browser import Page
from .page_serving import as_toml, remember, serving, settings_of
from .serve_server import ServerProcess

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

HOSTILE = '<img src=x onerror="window.broken = 1"><script>window.broken = 2</script><b>bold</b> & &amp; \' "'
PIECES = ("A ", "red ", "circle ", "and <img src=x ", 'onerror="window.broken = 1"> ', "a square.")


@pytest.fixture
def driver() -> Iterator[WebDriver]:
    """One for each test: no tab and no token is left to the next."""
    with chromium() as driver:
        yield driver


class Scripted(Streams):
    """A desk whose model says what the test wants, a piece at a time; the rest is real."""

    pieces: tuple[str, ...] = PIECES
    goes_on = threading.Event()  # an answer waits for it after its third piece

    def ask(
        self, stream_id: str, question: Question, *, on_text: Callable[[str], None] | None = None
    ) -> Future[Answer]:
        self.state(stream_id)
        asked: Future[Answer] = Future()
        asked.set_running_or_notify_cancel()

        def say() -> None:
            so_far = ""
            for number, piece in enumerate(self.pieces):
                if number == 3:
                    self.goes_on.wait(60)
                so_far += piece
                if on_text is not None:
                    on_text(so_far)
                time.sleep(0.02)
            seen_s = self.state(stream_id).seen_until_s or 0.0
            used = (Span(0.0, min(1.0, seen_s)),)
            asked.set_result(Answer(question.text, so_far, seen_s, seen_s, used, Timing(0.1, 0.2), (1, 2, 3)))

        threading.Thread(target=say, daemon=True).start()
        return asked


def test_a_server_that_dies_is_told_of_and_its_return_too(driver: WebDriver, tmp_path: Path) -> None:
    config = tmp_path / "millpond.toml"
    config.write_text(as_toml(settings_of()))
    with ServerProcess(config) as server:
        url, port = server.url, int(server.url.rpartition(":")[2])
        server.wait_until_ready()
        page = Page(driver, url).open()
        page.until_pictured()
        assert page.ask("What is there?").get_attribute("data-state") == "answered"
        page.until(lambda: page.all("#narration li"), "a narration")
        server.end(signal.SIGKILL)
        page.until(lambda: "Connection lost" in page.text("#connection"), "word of the loss")
        assert page.one(".badge.not-now").is_displayed() and not page.one("#stream-state").is_displayed()
        assert {word.text for word in page.all(".state-word")} == {"Not known"}
        page.one("#question").send_keys("And now?", Keys.ENTER)
        page.until(lambda: page.one(".entry").get_attribute("data-state") == "failed", "word of the failure")
        assert page.text(".entry .answer-state") == "The server does not answer."
        last = page.until_pictured()
    with ServerProcess(config, port=port) as server:
        assert server.url == url
        page.until(lambda: page.text("#connection") == "Connected again", "word of the return")
        page.until(lambda: page.until_pictured() != last, "a new picture, without a reload")
        page.until(lambda: page.one("#stream-state").is_displayed(), "the stream's state")
        # The log of the new server is followed from its first line, and nothing of the old one is left beside it.
        path = "/v1/streams/front-door/events"
        page.until(lambda: page.get(path)["data"], "a first line of the new server")
        code = "return [...document.querySelectorAll('#narration li')].map((li) => Number(li.dataset.number))"
        page.until(lambda: page.js(code) and len(set(page.js(code))) == len(page.js(code)), "the new log")
        numbers = {row["number"] for row in page.get(path)["data"]}
        assert set(page.js(code)) <= numbers
        page.one(".entry .entry-buttons button:not([hidden])").click()
        page.until(lambda: page.one(".entry").get_attribute("data-state") == "answered", "an answer after all")
        assert page.text(".entry .asked-words") == "And now?"
        assert complaints(driver) == []


def test_a_token_is_asked_for_kept_in_the_tab_and_shown_with_everything(driver: WebDriver) -> None:
    with serving(token="right-and-long-enough-0123456789") as url:
        page = Page(driver, url).open()
        page.until(lambda: page.one("#token-dialog").is_displayed(), "the question for a token")
        assert driver.switch_to.active_element.get_attribute("id") == "token"
        assert page.one("#token").get_attribute("type") == "password"
        for wrong, told in (("wrong", "does not take"), ("it has spaces", "no spaces"), ("ümlaut", "no spaces")):
            page.one("#token").clear()
            page.one("#token").send_keys(wrong, Keys.ENTER)
            page.until(lambda told=told: told in page.text("#token-problem"), f"what is wrong with {wrong!r}")
        page.press(Keys.ESCAPE)
        page.press(Keys.ESCAPE)
        page.until(lambda: page.one("#token-dialog").is_displayed(), "the question again")
        page.one("#token").clear()
        page.one("#token").send_keys("right-and-long-enough-0123456789", Keys.ENTER)
        assert page.until_pictured().startswith("blob:")
        assert not page.one("#token-dialog").is_displayed()
        page.until(lambda: page.all("#narration li"), "narration, which comes as events")
        entry = page.ask("What is there?")
        assert entry.get_attribute("data-state") == "answered"
        link = entry.find_element(By.CSS_SELECTOR, "a.span")
        page.until(lambda: link.find_element(By.TAG_NAME, "img").is_displayed(), "a small keyframe")
        page.driver.refresh()
        page.until_pictured()
        assert page.js("return localStorage.length") == 0 and page.js("return document.cookie") == ""
        assert "right-and" not in page.js("return location.href + document.documentElement.outerHTML")
        driver.switch_to.new_window("tab")
        Page(driver, url).open().until(lambda: page.one("#token-dialog").is_displayed(), "the question in a new tab")
        assert complaints(driver) == []


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    """Servers that are started from now on have such a desk."""
    monkeypatch.setattr(streams_module, "Streams", Scripted)
    Scripted.goes_on.clear()
    return Scripted


@pytest.mark.usefixtures("scripted")
def test_what_a_model_says_is_text_and_comes_as_it_is_said(driver: WebDriver) -> None:
    with serving(ids=("front-door", HOSTILE.replace("/", "|"))) as url:
        page = Page(driver, url).open()
        page.until_pictured()
        page.one("#question").send_keys(HOSTILE, Keys.ENTER)
        page.until(lambda: page.text(".entry .answer-text") == "A red circle ", "the first half of the answer")
        assert page.one(".entry").get_attribute("data-state") == "answering"
        assert page.one(".entry .answer").get_attribute("aria-busy") == "true"  # it is read aloud when it is whole
        Scripted.goes_on.set()
        page.until(lambda: page.one(".entry").get_attribute("data-state") == "answered", "the end of the answer")
        assert page.text(".entry .answer-text") == "".join(PIECES)
        assert page.text(".entry .asked-words") == HOSTILE
        names = [name.get_attribute("textContent") for name in page.all(".stream-name")]
        assert names == ["front-door", HOSTILE.replace("/", "|")]
        page.all(".stream")[1].click()
        page.until(lambda: page.text("#stream-name") == HOSTILE.replace("/", "|"), "the stream of that name")
        page.until_pictured()
        assert is_unharmed(page)
        assert complaints(driver) == []


@pytest.mark.usefixtures("scripted")
def test_an_answer_can_be_stopped(driver: WebDriver) -> None:
    with serving() as url:
        page = Page(driver, url).open()
        page.until_pictured()
        page.one("#question").send_keys("What is there?", Keys.ENTER)
        page.until(lambda: page.text(".entry .answer-text"), "the first words")
        page.one(".entry .entry-buttons button:not([hidden])").click()
        page.until(lambda: page.one(".entry").get_attribute("data-state") == "failed", "the end")
        assert page.text(".entry .answer-state") == "Stopped."
        assert page.text("#connection") == "Connected"
        Scripted.goes_on.set()


def test_what_a_log_says_is_text(driver: WebDriver, tmp_path: Path) -> None:
    """A log from an earlier run, with words that nobody would want on a page."""
    remember(tmp_path, "front-door", HOSTILE)
    with serving(memory=tmp_path) as url:
        page = Page(driver, url).open()
        page.until(lambda: page.all("#narration li"), "the log of before")
        told = "return [...document.querySelectorAll('#narration .told p')].map((p) => p.lastChild.textContent)"
        assert HOSTILE in page.js(told)
        page.until(lambda: page.text("#event-told") not in ("", "No events yet."), "an event below the timeline")
        page.one("#event-lane").send_keys(Keys.HOME)
        page.until(lambda: HOSTILE in page.text("#event-told"), "the event itself")
        assert is_unharmed(page)
        assert complaints(driver) == []


def is_unharmed(page: Page) -> bool:
    """Whether nothing of HOSTILE became an element or was run."""
    time.sleep(0.5)
    code = "return !('broken' in window) && !document.querySelector('main b, main script, main img[src=x], dialog b')"
    return bool(page.js(code))
