"""Camera: what read, async_read and read_latest give, what is counted, and what becomes of clocks that jump."""

from __future__ import annotations

import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.robot import camera as camera_module
from millpond.pipeline.robot.camera import Camera, Picture, StaleView
from millpond.pipeline.robot.camera_clock import CameraClock
from millpond.stream import Frame, SourceLost

from .robot_cameras import HandCamera, PacedCamera, plain

RED, GREEN, BLUE = plain(255, 0, 0), plain(0, 255, 0), plain(0, 0, 255)
PATIENCE_S = 60.0


def shown(camera: Camera, source: HandCamera, *pictures: object) -> None:
    """All of these were given, and have arrived."""
    before = camera.num_pictures
    for picture in pictures:
        source.give(picture)  # type: ignore[arg-type]
    until_s = time.monotonic() + PATIENCE_S
    while camera.num_pictures < before + len(pictures):
        assert time.monotonic() < until_s
        time.sleep(0.002)


def test_latest_is_the_newest_and_takes_nothing() -> None:
    source = HandCamera()
    with Camera(source, "top") as camera:
        shown(camera, source, RED, GREEN)
        first = camera.read_latest(PATIENCE_S)
        again = camera.read_latest(PATIENCE_S)
        assert first is again and first.number == 1 and (first.frame.rgb_HW3 == GREEN).all()
        assert camera.num_dropped == 0, "nothing was taken yet, so nothing was passed over"
        taken = camera.async_read(PATIENCE_S)
        assert taken is first and camera.num_dropped == 1


def test_async_read_gives_each_picture_once_and_waits_for_the_next() -> None:
    source = HandCamera()
    with Camera(source) as camera:
        shown(camera, source, RED)
        assert camera.async_read(PATIENCE_S).number == 0
        with pytest.raises(TimeoutError, match=r"camera 'hand' gave no new picture in 0\.01 s"):
            camera.async_read(0.01)
        giving = threading.Timer(0.05, source.give, [GREEN])
        giving.start()
        assert camera.async_read(PATIENCE_S).number == 1
        giving.join()


def test_read_waits_for_a_picture_that_comes_after_the_call() -> None:
    source = HandCamera()
    with Camera(source) as camera:
        shown(camera, source, RED)
        with pytest.raises(TimeoutError, match="gave no new picture"):
            camera.read(0.01)  # the one that is there is not the next one
        giving = threading.Timer(0.05, source.give, [BLUE])
        giving.start()
        picture = camera.read(PATIENCE_S)
        giving.join()
        assert (picture.frame.rgb_HW3 == BLUE).all() and picture.number == 1
        assert camera.num_dropped == 1


def test_the_newest_wins_and_all_others_are_counted() -> None:
    source = HandCamera()
    with Camera(source) as camera:
        num_taken = 0
        for round_ in range(3):
            shown(camera, source, *[RED] * (2 + round_))
            camera.async_read(PATIENCE_S)
            num_taken += 1
        assert camera.num_pictures == 9 == num_taken + camera.num_dropped


def test_the_gap_before_a_picture_that_is_overtaken_is_not_lost() -> None:
    source = HandCamera()
    with Camera(source) as camera:
        gaps_s = []
        for round_s in ((0.0, 5.0, 0.0), (2.0, 0.5), (0.0,)):
            before = camera.num_pictures
            for gap_s in round_s:
                source.give(RED, gap_s=gap_s)
            source.wait_taken()
            while camera.num_pictures < before + len(round_s):
                time.sleep(0.002)
            gaps_s.append(camera.read_latest(PATIENCE_S).gaps_s)
        assert gaps_s == [5.0, 7.5, 7.5]


def test_an_old_picture_is_refused_and_the_reason_told() -> None:
    source = HandCamera()
    with Camera(source, "wrist") as camera:
        with pytest.raises(StaleView, match="camera 'wrist' has shown nothing yet"):
            camera.read_latest(1.0)
        shown(camera, source, RED)
        time.sleep(0.02)
        with pytest.raises(StaleView, match=r"newest picture of camera 'wrist' is .* s old, and at most 0\.01 s"):
            camera.read_latest(0.01)
        source.end(ConnectionError("the cable of rtsp://me:secret@host/x is out"))
        with pytest.raises(SourceLost, match="camera 'wrist' is lost and gives no more pictures"):
            camera.read(PATIENCE_S)
        assert camera.state == "lost" and camera.problem is not None and "secret" not in camera.problem
        with pytest.raises(StaleView, match="the cable of"):
            camera.read_latest(0.0)
    assert issubclass(StaleView, TimeoutError), "which is what LeRobot's cameras raise"


def test_a_source_that_ends_wakes_who_waits() -> None:
    source = HandCamera()
    with Camera(source) as camera:
        ending = threading.Timer(0.05, source.end)
        ending.start()
        with pytest.raises(SourceLost, match="camera 'hand' is ended"):
            camera.read(PATIENCE_S)
        ending.join()
        assert camera.state == "ended" and camera.problem is None


def test_closing_wakes_who_waits_and_ends_the_thread() -> None:
    source = HandCamera()
    camera = Camera(source).start()
    closing = threading.Timer(0.05, camera.close)
    closing.start()
    with pytest.raises(SourceLost, match="is closed"):
        camera.async_read(PATIENCE_S)
    closing.join()
    camera.close()
    assert source.is_closed and not any(thread.name == "millpond camera hand" for thread in threading.enumerate())
    with pytest.raises(ValueError, match="make another Camera"):
        camera.start()


def test_a_camera_that_was_not_started_says_so() -> None:
    camera = Camera(HandCamera())
    with pytest.raises(ValueError, match="was not started; got no picture; call start"):
        camera.async_read(0.1)
    camera.close()


def test_a_recording_is_paced_by_its_own_times() -> None:
    address = "synthetic://shapes?seed=1&duration_s=0.4&rate_hz=10&width=32&height=24"
    began_s = time.monotonic()
    with Camera(address, "file") as camera:
        picture = camera.read(PATIENCE_S)
        assert picture.frame.stream_id == "file"
        while camera.state == "live":
            time.sleep(0.01)
        assert time.monotonic() - began_s > 0.25, "not as fast as it can be painted"
        assert camera.num_pictures == 4


def test_what_the_source_tells_of_the_capture_makes_a_picture_older_and_never_younger() -> None:
    ages = []
    for wall_shift_s, trusts in ((-3.0, True), (3.0, True), (-3.0, False)):
        source = HandCamera()
        with Camera(source, trusts_wall=trusts) as camera:
            with source._news:
                source._waiting.append(Frame(RED, 0.0, "hand", 0, wall_s=time.time() + wall_shift_s))
                source._num_given += 1
                source._news.notify_all()
            picture = camera.async_read(PATIENCE_S)
            ages.append(picture.age_s(picture.arrived_s))
    assert ages[0] >= 3.0 and ages[1:] == [0.0, 0.0]


def test_a_picture_that_is_shown_again_is_as_old_as_it_was() -> None:
    """A driver that hangs may hand out its last buffer for ever."""
    source = HandCamera()
    with Camera(source) as camera:
        source.give(RED, 0.0)
        first = camera.async_read(PATIENCE_S)
        time.sleep(0.05)
        source.give(RED, 0.0)
        again = camera.async_read(PATIENCE_S)
        assert again.number == 1 and again.arrived_s > first.arrived_s
        assert again.captured_s == first.captured_s
        source.give(RED, 0.1)
        assert camera.async_read(PATIENCE_S).captured_s > first.captured_s


def test_a_clock_that_jumps_is_flagged_and_anchored_anew() -> None:
    source = PacedCamera("top", rate_hz=50.0, jumps={3: 100.0, 6: -90.0}, ends_at=9)
    pictures: list[Picture] = []
    camera = Camera(source, max_jump_s=5.0)
    camera.on_news(lambda: pictures.append(camera.newest) if camera.newest is not None else None)
    with camera:
        until_s = time.monotonic() + PATIENCE_S
        while camera.state == "live" and time.monotonic() < until_s:
            time.sleep(0.01)
    by_index = {picture.frame.index: picture for picture in pictures}
    jumped = sorted(index for index, picture in by_index.items() if picture.clock_jumped)
    assert jumped == [3, 6] and camera.num_jumps == 2
    times_s = [by_index[index].pts_s for index in sorted(by_index)]
    assert times_s == sorted(times_s) and times_s[-1] < 90.0, "the jumps are taken out"


def test_a_picture_that_comes_late_is_no_jump() -> None:
    clock = CameraClock(1.0)
    clock.place(0.0, 10.0)
    assert not clock.place(0.1, 15.0).clock_jumped, "it was held up for five seconds"
    assert clock.place(0.2, 15.05)[:2] == (0.2, False), "and the queue behind it is emptied"
    assert clock.place(4.9, 15.1)[:2] == (4.9, False), "until it has caught up"
    assert clock.place(9.0, 15.2).clock_jumped, "but nothing comes before its time"


def test_how_late_a_picture_comes_is_told_by_its_own_time() -> None:
    clock = CameraClock()
    late_s = [
        clock.place(told_s, arrived_s).late_s for told_s, arrived_s in ((0, 7), (1, 8.5), (2, 9), (3, 12), (4, 12))
    ]
    assert late_s == pytest.approx([0, 0.5, 0, 2, 1], abs=0.01)


def test_a_picture_that_was_held_up_is_older_where_its_own_time_is_believed() -> None:
    for trusts in (True, False):
        source = HandCamera()
        with Camera(source, trusts_pts=trusts) as camera:
            shown(camera, source, RED)
            time.sleep(0.3)
            source.give(GREEN, 0.01)  # by its own time, just after the first
            while camera.num_pictures < 2:
                time.sleep(0.002)
            picture = camera.read_latest(PATIENCE_S)
            assert (picture.arrived_s - picture.captured_s > 0.2) == trusts


def test_a_time_that_is_no_number_is_a_jump() -> None:
    clock = CameraClock()
    clock.place(1.0, 0.0)
    assert clock.place(float("nan"), 0.5) == (1.5, True, 0.0)
    assert clock.place(1.2, 0.7)[:2] == (1.7, False)
    with pytest.raises(ValueError, match="max_jump_s is a finite number of seconds above 0; got 0"):
        CameraClock(0)


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6) | st.just(math.nan), st.floats(0.0, 100.0)),
        min_size=1,
        max_size=40,
    )
)
def test_placed_time_never_runs_back_nor_ahead_of_the_arrivals(steps: list[tuple[float, float]]) -> None:
    clock = CameraClock(1.0)
    arrived_s, placed = 0.0, []
    for told_s, waited_s in steps:
        arrived_s += waited_s
        placed.append(clock.place(told_s, arrived_s).pts_s)
        assert placed == sorted(placed)
        ahead_s = placed[-1] - placed[0] - arrived_s + steps[0][1]
        assert ahead_s <= 0.001 * arrived_s + 1.0 * (clock.num_jumps + 1) + 1e-6


def test_a_clock_that_runs_fast_jumps_again_and_again() -> None:
    clock = CameraClock(1.0)
    jumps = [number for number in range(100) if clock.place(0.2 * number, 0.1 * number).clock_jumped]
    assert 8 <= len(jumps) <= 11, "each second that it gains"
    assert clock.place(0.2 * 100, 0.1 * 100).pts_s < 0.1 * 100 + 1.1 * (len(jumps) + 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda camera: camera.read_latest(-1.0), "max_age_s is a number of seconds, 0 or more; got -1"),
        (lambda camera: camera.read_latest(float("nan")), "max_age_s is a number of seconds, 0 or more; got nan"),
        (lambda camera: camera.async_read(-0.1), "timeout_s is a number of seconds, 0 or more; got -0.1"),
    ],
)
def test_what_is_no_time_is_refused(call: object, message: str) -> None:
    with Camera(HandCamera()) as camera, pytest.raises(ValueError, match=message):
        call(camera)  # type: ignore[operator]


def test_a_camera_needs_a_name() -> None:
    with pytest.raises(ValueError, match="a camera needs a name; got ' '"):
        Camera(HandCamera(), " ")


def test_a_camera_that_is_closed_while_it_is_opened_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    source = HandCamera("slow")

    def open_slowly(uri: str, *, stream_id: str) -> HandCamera:
        camera.close()
        return source

    monkeypatch.setattr(camera_module, "open_source", open_slowly)
    camera = Camera("rtsp://slow/stream", "slow")
    with pytest.raises(SourceLost, match="camera 'slow' was closed while it was opened"):
        camera.start()
    assert source.is_closed and camera.state == "closed"
    assert not any(thread.name == "millpond camera slow" for thread in threading.enumerate())
