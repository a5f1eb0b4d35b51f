"""A stream's time goes on where an earlier session left it, by the wall where that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.history import Known
from millpond.pipeline.session_clock import SessionClock
from millpond.stream import Frame, Span

from .watched import engine_of, picture, tiny

RGB = np.zeros((4, 4, 3), np.uint8)


def resumed(until_s: float, wall_s: float | None) -> SessionClock:
    clock = SessionClock(1.0)
    clock.resume(Known(0.0, until_s, 5, wall_s))
    return clock


def test_a_stream_without_a_past_keeps_its_source_s_time() -> None:
    clock = SessionClock(1.0)
    assert [clock.place(Frame(RGB, t)).pts_s for t in (7.0, 7.5)] == [7.0, 7.5]
    assert (clock.first_s, clock.last_s, clock.num_frames) == (7.0, 7.5, 2)
    with pytest.raises(ValueError, match=r"in order of time; got .* after one at 7.500 s"):
        clock.place(Frame(RGB, 7.4))
    assert clock.num_frames == 2


def test_what_passed_on_the_wall_is_a_gap() -> None:
    clock = resumed(10.0, wall_s=1000.0)
    first = clock.place(Frame(RGB, 0.0, wall_s=1090.0))
    assert (first.pts_s, first.gap_s) == (100.0, 90.0)
    second = clock.place(Frame(RGB, 1.0, wall_s=1091.0))
    assert (second.pts_s, second.gap_s) == (101.0, 0.0)


@pytest.mark.parametrize(
    ("before_s", "now_s"), [(None, 5000.0), (5000.0, None), (5000.0, 4000.0), (0.0, 1e11), (7.0, 7.5)]
)
def test_where_the_wall_tells_nothing_a_frame_period_passed(before_s: float | None, now_s: float | None) -> None:
    placed = resumed(10.0, before_s).place(Frame(RGB, 3.0, wall_s=now_s))
    assert (placed.pts_s, placed.gap_s) == (11.0, 0.0)


def test_a_recording_that_is_ahead_of_what_was_seen_keeps_its_time() -> None:
    assert resumed(10.0, None).place(Frame(RGB, 25.0)).pts_s == 25.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(-1e12, 1e12)), min_size=1, max_size=20))
def test_time_never_runs_backwards_whatever_clocks_say(ticks: list[tuple[float, float | None]]) -> None:
    known = Known(0.0, 100.0, 3, 1e9)
    last_s = 100.0
    for pts_s, wall_s in ticks:  # a session for each frame: every one is a first
        clock = SessionClock(0.5)
        clock.resume(known)
        placed = clock.place(Frame(RGB, pts_s, wall_s=wall_s))
        assert placed.pts_s > last_s and placed.gap_s >= 0
        last_s = placed.pts_s
        state = clock.state
        known = Known(state["seen_from_s"], state["seen_until_s"], state["num_frames"], state["wall_until_s"])


def test_a_gap_leaves_a_line_in_the_log(tmp_path: Path) -> None:
    engine = engine_of(tiny("llava_onevision"))
    session = engine.session("door", at=tmp_path)
    for n in range(3):
        session.push(Frame(picture(n), float(n), "door", n, wall_s=1000.0 + n))
    session.push(Frame(picture(3), 33.0, "door", 3, wall_s=1033.0, gap_s=31.0))
    assert [line.span for line in session.history.log.lines(kind="gap")] == [Span(2.0, 33.0)]
    session.close()
    again = engine.session("door", at=tmp_path)
    again.push(Frame(picture(4), 0.0, "door", 0, wall_s=1043.0))
    assert again.seen_until_s == 43.0
    lines = again.history.log.lines(kind="gap")
    assert [(line.span, line.text) for line in lines] == [
        (Span(2.0, 33.0), "no picture for 31 s"),
        (Span(33.0, 43.0), "no picture for 10 s"),
    ]
    again.close()
