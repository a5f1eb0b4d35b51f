"""The page's modules by themselves, in the browser that runs them: events cut anywhere, grids, series, words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from .chromium import chromium
from .page_server import page_server

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    with page_server() as port, chromium() as driver:
        driver.get(f"http://127.0.0.1:{port}/")
        yield driver


def run(browser: WebDriver, module: str, code: str, *given: object) -> Any:
    """What an expression gives, of a module's names (`it`) and of what is `given`."""
    script = (
        "const done = arguments[arguments.length - 1]; const given = arguments;"
        f"import('/page/{module}').then((it) => done({{value: ({code})}}))"
        ".catch((error) => done({error: `${error}`}))"
    )
    told = browser.execute_async_script(script, *given)  # type: ignore[no-untyped-call]
    assert "error" not in told, told["error"]
    return told.get("value")


# Events: the same, wherever the network cuts them.

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=12)
events = st.lists(st.tuples(st.integers(0, 99), st.lists(words, min_size=1, max_size=3)), max_size=5)
PARSE = "(() => {const p = new it.EventParser(); return given[0].flatMap((piece) => [...p.feed(piece)])})()"


@few
@given(events, st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_events_are_the_same_wherever_they_are_cut(browser: WebDriver, sent: list[Any], end: str, data: Any) -> None:
    lines = []
    for number, told in sent:
        lines += [f"id: {number}", ": a comment", "event: row", *(f"data: {line}" for line in told), ""]
    text = "".join(line + end for line in lines) + (":" if end == "\r" else "")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert run(browser, "api.js", PARSE, pieces) == [
        {"id": str(number), "event": "row", "data": "\n".join(told)} for number, told in sent
    ]


def test_events_as_the_standard_has_them(browser: WebDriver) -> None:
    text = "data:no space\n\ndata:  two\n\nevent: nothing\n\ndata\n\nother: x\ndata: y\n\ndata: cut off"
    told = run(browser, "api.js", PARSE, [text])
    assert [event["data"] for event in told] == ["no space", " two", "", "y"]
    assert [event["event"] for event in told] == ["message"] * 4


def test_an_event_without_an_end_is_given_up(browser: WebDriver) -> None:
    flood = """(() => {const p = new it.EventParser(); try {for (let n = 0; n < 1e4; n++) [...p.feed(given[0])];
    return 'held it all'} catch (error) {return error.message}})()"""
    for piece in ("x" * 4096, "data: " + "x" * 4096 + "\n"):
        assert run(browser, "api.js", flood, piece) == "an event without an end"


# Addresses: only keyframes of this server are ever linked.


@pytest.mark.parametrize(
    "given",
    [
        "javascript:alert(1)", "https://x.y/v1/streams/a/frames/1.jpg", "//x.y/v1/streams/a/frames/1.jpg", None, 7, {},
        "/v1/streams/../../x/frames/1.jpg", "/v1/streams/a/frames/../../../x.jpg", "/v1/streams/a/frames/1.jpg?x=1",
        "/v1/streams/a\\b/frames/1.jpg", "/v1/streams/a/frames/1.jpg\n//x", "v1/streams/a/frames/1.jpg",
    ],
)  # fmt: skip
def test_an_address_that_is_no_keyframe_is_none(browser: WebDriver, given: object) -> None:
    assert run(browser, "api.js", "it.keyframePath(given[0])", given) is None


def test_keyframes_have_addresses_whatever_the_stream_is_called(browser: WebDriver) -> None:
    for name in ("front-door", "a b", "ä?#%", "x&y=z"):
        path = run(browser, "api.js", "it.framePath(given[0], 12.3456)", name)
        assert path.endswith("/frames/12.346.jpg")
        assert run(browser, "api.js", "it.keyframePath(given[0])", path) == path


# Overlays: every cell is drawn once, where it is.


@few
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_the_area_and_the_outline_are_those_of_the_cells(
    browser: WebDriver, rows: int, columns: int, data: Any
) -> None:
    cells = data.draw(st.sets(st.integers(0, rows * columns - 1)))
    code = """(() => {const grid = it.gridOf(given[0], given[1], given[2]); return {count: grid.count,
    on: it.areaOf(grid), off: it.areaOf(grid, 0), edges: it.outlineOf(grid)}})()"""
    told = run(browser, "overlay.js", code, rows, columns, sorted(cells))
    has_HW = np.zeros((rows, columns), int)
    has_HW.flat[sorted(cells)] = 1
    assert told["count"] == len(cells)
    assert (painted(told["on"], rows, columns) == has_HW).all()
    assert (painted(told["off"], rows, columns) == 1 - has_HW).all()
    around_HW = np.pad(has_HW, 1)
    num_edges = np.abs(np.diff(around_HW, axis=0)).sum() + np.abs(np.diff(around_HW, axis=1)).sum()
    assert told["edges"].count("M") == num_edges


def painted(path: str, rows: int, columns: int) -> np.ndarray:
    """How often each cell is covered by the rectangles of a path: M left top H right V bottom H left Z."""
    times_HW = np.zeros((rows, columns), int)
    for one in path.split("Z")[:-1]:
        place, right, rest = one.removeprefix("M").split("H")[0], *one.split("H")[1].split("V")
        left, top = map(int, place.split(" "))
        times_HW[top : int(rest), left : int(right)] += 1
    return times_HW


@pytest.mark.parametrize(
    "given",
    [
        (0, 5, []), (5, -1, []), (2, 2, [4]), (2, 2, [-1]), (2, 2, [0.5]), (2, 2, ["0"]), (2, 2, None), (None, 2, []),
        (10**6, 10**6, []), (2.5, 2, []), ("2", 2, []),
    ],
)  # fmt: skip
def test_a_grid_that_is_none_is_not_drawn(browser: WebDriver, given: tuple[object, ...]) -> None:
    assert run(browser, "overlay.js", "it.gridOf(given[0], given[1], given[2])", *given) is None


# Series: bounded, in order, and the newest is never lost.


@few
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1)), max_size=30), st.integers(0, 5000))
def test_series_stay_bounded_and_in_order(browser: WebDriver, samples: list[Any], num_more: int) -> None:
    code = """(() => {const s = new it.Series(); for (const [at, value] of given[0]) s.add(at, value);
    for (let n = 0; n < given[1]; n++) s.add(100 + n, n); s.add(NaN, 1); s.add(1e9, null);
    return s.samples.map(({at_s, value}) => [at_s, value])})()"""
    told = run(browser, "series.js", code, samples, num_more)
    times = [at_s for at_s, _ in told]
    assert times == sorted(set(times)) and len(told) <= 1200
    if num_more:
        assert told[-1] == [99 + num_more, num_more - 1]
        assert told[0][0] == 100 or told[0][0] <= 50


# Words.


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("clock(0)", "0:00"), ("clock(7.9)", "0:07"), ("clock(750)", "12:30"), ("clock(3723)", "1:02:03"),
        ("clock(-5)", "−0:05"), ("clock(null)", "–"), ("clock(NaN)", "–"), ("clock(59.9999999)", "1:00"),
        ("stretch(3, 3.5)", "0:03"), ("stretch(3, 9)", "0:03–0:09"),
        ("percent(0)", "0 %"), ("percent(0.0004)", "0 %"), ("percent(0.021)", "2.1 %"), ("percent(0.0999)", "10 %"),
        ("percent(1)", "100 %"), ("percent(undefined)", "–"),
        ("bytes(0)", "0 B"), ("bytes(1023)", "1023 B"), ("bytes(1536)", "1.5 KiB"), ("bytes(2 ** 30)", "1.0 GiB"),
        ("bytes(700 * 2 ** 20)", "700 MiB"), ("bytes(null)", "–"), ("count(1234567)", "1,234,567"),
        ("wallTime(null)", None), ("wallTime('<b>')", None), ("ago(0.42)", "0.4 s"), ("ago(300)", "5:00"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(browser: WebDriver, call: str, told: str | None) -> None:
    assert run(browser, "words.js", f"it.{call}") == told


@few
@given(st.floats(0, 1e6), st.floats(0.5, 1e5), st.integers(50, 2000))
def test_ticks_are_in_the_window_and_not_too_many(browser: WebDriver, from_s: float, for_s: float, width: int) -> None:
    code = "(() => {const s = new it.TimeScale(given[0], given[1], given[2]); return [s.from_s, s.to_s, s.ticks()]})()"
    start_s, end_s, ticks = run(browser, "plot.js", code, from_s, from_s + for_s, width)
    assert all(start_s <= tick <= end_s for tick in ticks) and len(ticks) <= width / 90 + 1


def test_elements_are_made_of_text_alone(browser: WebDriver) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    code = "(() => {const e = it.el('p', {title: given[0]}, given[0]); return [e.textContent, e.children.length]})()"
    assert run(browser, "dom.js", code, hostile) == [hostile, 0]
    refused = "(() => {try {document.body.innerHTML = given[0]; return 'taken'} catch (error) {return error.name}})()"
    assert run(browser, "dom.js", refused, hostile) == "TypeError"
