"""The page as somebody sees and uses it: what tests do with it in a real browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from .chromium import LONG_S

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement


class Page:
    """What somebody sees and does on the page."""

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, place: str = "") -> Page:
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/{place}")
        return self

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)  # type: ignore[no-any-return]

    def js(self, code: str, *given: object) -> Any:
        return self.driver.execute_script(code, *given)  # type: ignore[no-untyped-call]

    def get(self, path: str) -> Any:
        """What the browser gets of the server's JSON."""
        code = "const done = arguments[1]; fetch(arguments[0]).then((r) => r.json()).then(done)"
        return self.driver.execute_async_script(code, path)  # type: ignore[no-untyped-call]

    def until(self, what: Callable[[], Any], told: str) -> Any:
        """Waits until it is so."""
        until_s = time.monotonic() + LONG_S
        while time.monotonic() < until_s:
            with suppress(NoSuchElementException, StaleElementReferenceException):  # it is drawn anew just now
                found = what()
                if found:
                    return found
            time.sleep(0.1)
        raise AssertionError(f"not within {LONG_S:g} s: {told}")

    def until_pictured(self) -> str:
        """Waits for a live picture, and gives its address."""
        code = "const i = document.getElementById('picture'); return !i.hidden && i.naturalWidth > 0 && i.src"
        return self.until(lambda: self.js(code), "a live picture")  # type: ignore[no-any-return]

    def until_connected(self) -> None:
        self.until(lambda: self.js("return document.documentElement.dataset.connection") == "up", "a connection")

    def ask(self, words: str) -> WebElement:
        """Asks, and waits for the end of the answer."""
        num_before = len(self.all(".entry"))
        self.one("#question").send_keys(words, Keys.ENTER)
        self.until(lambda: len(self.all(".entry")) > num_before, "the question below the box")
        entry = self.one(".entry")
        self.until(lambda: entry.get_attribute("data-state") in ("answered", "failed"), "the end of an answer")
        return entry

    def press(self, *keys: str) -> None:
        """Keys, for whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)
