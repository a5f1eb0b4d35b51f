"""What a live source says of its peer: each change once, and no more."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream import SourceError, SourceLost, SourceStats
from millpond.stream.live_status import LiveStatus


class Clock:
    """A clock that goes when it is told to."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def status_and_clock() -> tuple[LiveStatus, Clock]:
    clock = Clock()
    return LiveStatus("rtsp://cam/x", SourceStats(), clock), clock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


def test_lost_and_back_are_one_line_each_with_how_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    status, clock = status_and_clock()
    assert status.state == "connecting" and status.problem is None
    status.come()
    status.come()
    assert status.state == "live"
    status.fail(SourceLost("rtsp://cam/x closed the connection after 3.0 s"))
    assert (status.state, status.problem) == ("lost", "rtsp://cam/x closed the connection after 3.0 s")
    for _ in range(50):
        clock.now_s += 10.0
        status.fail(SourceLost("rtsp://cam/x refuses the connection"))
    assert status.problem == "rtsp://cam/x refuses the connection"
    status.come()
    assert status.state == "live" and status.problem is None
    assert lines(caplog) == [
        "connected to rtsp://cam/x",
        "rtsp://cam/x closed the connection after 3.0 s; trying again until it answers",
        "rtsp://cam/x is back after 500.0 s",
    ]
    assert len(caplog.records) == 3 + 50


def test_one_that_never_was_there_is_connected_and_not_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    status, clock = status_and_clock()
    status.fail(SourceLost("no answer"))
    assert status.state == "connecting"
    clock.now_s += 7.0
    status.come()
    assert lines(caplog) == ["no answer; trying again until it answers", "connected to rtsp://cam/x after 7.0 s"]


def test_what_a_user_can_set_right_is_said_once_per_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    status, _ = status_and_clock()
    for problem in ("no answer", "wrong password", "wrong password", "no such path", "no such path"):
        status.fail(SourceLost(problem) if problem == "no answer" else SourceError(problem))
    assert [line.partition(";")[0] for line in lines(caplog)] == ["no answer", "wrong password", "no such path"]


def test_nothing_follows_an_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    status, _ = status_and_clock()
    status.end(SourceLost("gave up"))
    status.come()
    status.fail(SourceLost("again"))
    status.end()
    assert (status.state, status.problem) == ("ended", "gave up") and lines(caplog) == ["gave up"]


@given(st.lists(st.sampled_from(["come", "lose", "err", "end"]), max_size=40))
def test_reconnects_are_the_times_it_was_lost_and_came(moves: list[str]) -> None:
    stats = SourceStats()
    status = LiveStatus("rtsp://cam/x", stats, Clock())
    state, num_back = "connecting", 0
    for move in moves:
        if move == "come":
            status.come()
            num_back += state == "lost"
            state = "live" if state != "ended" else state
        elif move == "end":
            status.end()
            state = "ended"
        else:
            status.fail(SourceLost("gone") if move == "lose" else SourceError("wrong"))
            state = "lost" if state == "live" else state
        assert (status.state, stats.num_reconnects) == (state, num_back)
        assert (status.problem is None) or state in ("connecting", "lost", "ended")
