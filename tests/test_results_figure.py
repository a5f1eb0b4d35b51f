"""The figures of the results page: what is in them, and that nothing lies outside."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import result_files as made
from .result_files import SVG, marks


def test_the_figure_has_every_method_on_every_axis_and_a_star_for_the_defaults(tmp_path: Path) -> None:
    svg = made.page(tmp_path, one=made.usual()).figures["one"]
    titles = [group.find(f"{SVG}title").text for group in marks(svg)]  # type: ignore[union-attr]
    assert len(titles) == 3 * 7
    stars = [group for group in marks(svg) if group.find(f"{SVG}circle") is None]
    assert [group.find(f"{SVG}title").text.split(":")[0] for group in stars] == ["millpond"] * 3  # type: ignore[union-attr]
    # Filled is what is on the front: once, by the time to the first token.
    fills = [group.findall(f"{SVG}path")[-1].get("fill") for group in stars]
    assert [fill != "#fff" for fill in fills] == [False, False, True]


def test_a_method_that_was_not_measured_is_left_out_of_that_axis(tmp_path: Path) -> None:
    result = made.suite(made.method("millpond", 80), made.method("last-4", 70, frame_s=None))
    made_page = made.page(tmp_path, one=result)
    assert len(marks(made_page.figures["one"])) == 2 + 1 + 2 - 0
    assert "On wall time per frame nothing can be compared" in made_page.text


def test_a_run_in_which_nothing_was_scored_is_a_page_too(tmp_path: Path) -> None:
    nothing = {"accuracy": None, "interval": None, "num_questions": 0, "by_type": {}, "by_category": {}}
    gone = {"missing": [{"video": "gone.mp4", "num_questions": 4}], "costs": {"frame_s": None}}
    made_page = made.page(tmp_path, one=made.suite(made.method("millpond", 0, **nothing, **gone)))
    assert "Not scored: <code>gone.mp4</code> is missing (4 questions)." in made_page.text
    assert marks(made_page.figures["one"]) == []


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.one_of(st.just(0.0), st.floats(1e-12, 1e18)), st.integers(0, 2**50)),
        min_size=1,
        max_size=30,
    )
)
def test_all_of_a_figure_lies_within_it(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    methods = [
        made.method(f"last-{at + 1}", right, frame_s=cost, kv_bytes=count, ttft_s=cost)
        for at, (right, cost, count) in enumerate(rows)
    ]
    svg = made.page(tmp_path_factory.mktemp("figure"), one=made.suite(*methods)).figures["one"]
    root = ElementTree.fromstring(svg)
    for circle in root.iter(f"{SVG}circle"):
        assert 40 <= float(circle.get("cx", "")) <= 400 and 30 <= float(circle.get("cy", "")) <= 380
