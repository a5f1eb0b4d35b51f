"""RobotFeed: what a policy is given is what the cameras show now, by the model's own tokens, with its age; or it is
told that it is not."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from millpond.encoders import VideoLLM
from millpond.encoders.reuse.none import NoReuse
from millpond.pipeline.robot import Camera, Perception, RobotFeed, StaleView
from millpond.pipeline.robot.camera import Picture
from millpond.pipeline.robot.pairing import Pairing
from millpond.stream import Frame, SourceError

from .reuse_clips import load_tiny
from .robot_cameras import (
    PATIENCE_S,
    HandCamera,
    PacedCamera,
    dense,
    is_of_newest,
    plain,
    show,
    until,
    world_pictures,
)

LONG_S = 1e6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))


def two(model: VideoLLM, **settings: object) -> tuple[RobotFeed, HandCamera, HandCamera]:
    top, wrist = HandCamera("top"), HandCamera("wrist")
    settings = {"pair_tolerance_s": 0.1, "paired_by": "pts", "reuse": NoReuse()} | settings
    return RobotFeed([Camera(top), Camera(wrist)], model, **settings), top, wrist  # type: ignore[arg-type]


def test_tokens_and_places_are_the_models_own_for_cameras_of_two_sizes(model: VideoLLM) -> None:
    feed, top, wrist = two(model)
    large, small = world_pictures(num=4, height=96, width=128)[2], world_pictures(num=4)[3]
    with feed:
        show(feed, (top, large, 1.0), (wrist, small, 1.05))
        perception = feed.latest(LONG_S)
    expected = torch.cat((dense(model, large), dense(model, small)))
    torch.testing.assert_close(perception.tokens_TD, expected, atol=0, rtol=0)
    (rows, columns), _ = perception.grids_hw
    assert perception.kept_T3.tolist() == [
        [camera, row, column] for camera in range(2) for row in range(rows) for column in range(columns)
    ]
    assert perception.camera_ids == ("top", "wrist") and perception.pts_s == (1.0, 1.05)
    assert perception.num_dropped == 0 and not perception.is_stale and perception.number == 0
    assert 0 <= perception.age_s < PATIENCE_S


def test_the_age_is_that_of_the_oldest_view(model: VideoLLM) -> None:
    feed, top, wrist = two(model)
    with feed:
        show(feed, (top, plain(9, 9, 9), 0.0), (wrist, plain(9, 9, 9), 0.0))
        show(feed, (top, plain(99, 9, 9), 0.05))
        perception = feed.latest(LONG_S)
        now_s = time.monotonic()
        captured_s = [view.captured_s for view in perception.views]
        assert captured_s[0] > captured_s[1] == min(captured_s)
        assert 0 <= now_s - captured_s[1] - perception.age_s < 1.0, "to the moment at which it was returned"


@pytest.mark.parametrize("mode", ["raise", "flag"])
def test_a_view_that_is_too_old_is_an_error_or_a_flag_as_the_caller_chose(model: VideoLLM, mode: str) -> None:
    feed, top, wrist = two(model, when_stale=mode)
    with feed:
        with pytest.raises(StaleView, match="the feed has seen nothing yet"):
            feed.latest(LONG_S)
        show(feed, (top, plain(0, 0, 0), 0.0), (wrist, plain(0, 0, 0), 0.0))
        assert not feed.latest(LONG_S).is_stale
        top.end(ConnectionError("the plug of top is out"))
        until(lambda: feed.cameras["top"].state == "lost")
        time.sleep(0.02)
        if mode == "raise":
            with pytest.raises(StaleView, match=r"the view is .* s old, and at most 0\.01 s .*the plug of top is out"):
                feed.latest(0.01)
        else:
            perception = feed.latest(0.01)
            assert perception.is_stale and "the plug of top is out" in (perception.problem or "")
            assert perception.age_s > 0.01


def test_pictures_that_lie_too_far_apart_are_not_published_as_a_pair(model: VideoLLM) -> None:
    feed, top, wrist = two(model)
    with feed:
        show(feed, (top, plain(0, 0, 0), 0.0), (wrist, plain(0, 0, 0), 0.0))
        top.give(plain(200, 0, 0), 0.4)
        until(lambda: feed.problem is not None)
        assert "'wrist' and 'top' lie 0.400 s apart by pts, and pair_tolerance_s is 0.1" in str(feed.problem)
        assert feed.latest(LONG_S).pts_s == (0.0, 0.0), "the last pair, which grows old"
        with pytest.raises(StaleView, match=r"lie 0\.400 s apart"):
            feed.latest(0.0)
        show(feed, (wrist, plain(0, 200, 0), 0.35))
        assert feed.latest(LONG_S).pts_s == (0.4, 0.35) and feed.problem is None


def test_pictures_that_lie_too_far_apart_are_flagged_where_that_is_wanted(model: VideoLLM) -> None:
    feed, top, wrist = two(model, when_stale="flag")
    with feed:
        show(feed, (top, plain(0, 0, 0), 0.0), (wrist, plain(0, 0, 0), 0.0))
        show(feed, (top, plain(200, 0, 0), 0.4))
        perception = feed.latest(LONG_S)
        assert perception.pts_s == (0.4, 0.0) and perception.is_stale
        assert perception.problem is not None and "lie 0.400 s apart" in perception.problem


def test_pairs_by_arrival_are_told_by_the_clock_of_this_machine() -> None:
    def picture(name: str, captured_s: float) -> Picture:
        return Picture(Frame(plain(0, 0, 0), 0.0), name, 0, captured_s + 0.01, captured_s, pts_s=99.0 * len(name))

    pairing = Pairing(0.1)
    assert pairing.problem([picture("a", 5.0)]) is None
    assert pairing.problem([picture("a", 5.0), picture("bcd", 5.09), picture("ef", 5.05)]) is None
    told = pairing.problem([picture("a", 5.0), picture("bcd", 5.3), picture("ef", 5.05)])
    assert told is not None and "'a' and 'bcd' lie 0.300 s apart by arrival" in told
    for tolerance_s in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="pair_tolerance_s is a finite number of seconds, 0 or more"):
            Pairing(tolerance_s)


def test_what_newer_pictures_overtook_is_counted(model: VideoLLM) -> None:
    source = HandCamera("top")
    with RobotFeed([Camera(source)], model, reuse=NoReuse()) as feed:
        num_dropped = 0
        for num in (5, 10, 15):
            for shade in range(5):
                source.give(plain(40 * shade, 0, 0))
            until(lambda num=num: feed.cameras["top"].num_pictures == num and is_of_newest(feed))
            num_dropped += feed.latest(LONG_S).num_dropped
        assert num_dropped == 15 - feed.stats["top"].num_blocks
        assert feed.latest(LONG_S).num_dropped == 0, "the same again: nothing came since"


def test_a_call_that_is_refused_takes_nothing(model: VideoLLM) -> None:
    source = HandCamera("top")
    with RobotFeed([Camera(source)], model, reuse=NoReuse(), num_held=1) as feed:
        show(feed, (source, world_pictures()[0]))
        perception = feed.latest(LONG_S)
        tokens_TD, kept_T3 = perception.tokens_TD.clone(), perception.kept_T3.clone()
        for number in range(1, 6):
            show(feed, (source, world_pictures()[number]))
            with pytest.raises(StaleView):
                feed.latest(0.0)
            assert torch.equal(perception.tokens_TD, tokens_TD) and torch.equal(perception.kept_T3, kept_T3)
            feed.observe_attention(torch.ones(perception.num_tokens))


def test_the_newest_is_taken_again_while_nothing_newer_is_there(model: VideoLLM) -> None:
    source = HandCamera("top")
    with RobotFeed([Camera(source)], model, reuse=NoReuse()) as feed:
        show(feed, (source, plain(0, 0, 0), 0.0))
        first, again = feed.latest(LONG_S), feed.latest(LONG_S)
        assert first.number == again.number == 0 and again.age_s >= first.age_s
        assert feed.read_latest(LONG_S).number == 0
        with pytest.raises(TimeoutError, match=r"the feed published no new view in 0\.01 s"):
            feed.async_read(0.01)
        giving = threading.Timer(0.05, source.give, [plain(1, 2, 3)])
        giving.start()
        assert feed.read(PATIENCE_S, max_age_s=LONG_S).number == 1
        giving.join()


def test_a_perception_stays_as_it_is_until_latest_was_called_as_often_as_said(model: VideoLLM) -> None:
    source = HandCamera("top")
    with RobotFeed([Camera(source)], model, reuse=NoReuse(), num_held=3) as feed:
        kept: list[tuple[Perception, torch.Tensor]] = []
        for number in range(8):
            # Several come for each that is taken: all free buffers are written, over and over.
            for shade in range(3):
                show(feed, (source, world_pictures()[(3 * number + shade) % 40], 0.1 * (3 * number + shade)))
            perception = feed.latest(LONG_S)
            kept.append((perception, perception.tokens_TD.clone()))
            for held, as_it_was in kept[-3:]:
                assert torch.equal(held.tokens_TD, as_it_was)
        for shade in range(4):
            show(feed, (source, world_pictures()[shade], 10.0 + shade))
        for held, as_it_was in kept[-3:]:
            assert torch.equal(held.tokens_TD, as_it_was), "however much is published meanwhile"
        assert not all(torch.equal(held.tokens_TD, as_it_was) for held, as_it_was in kept[:-3]), "buffers go round"


def test_no_tick_allocates_after_warm_up(model: VideoLLM) -> None:
    source = HandCamera("top")
    with RobotFeed([Camera(source)], model, reuse=NoReuse(), num_held=2) as feed:
        buffers = set()
        for number in range(12):
            show(feed, (source, world_pictures()[number], 0.1 * number))
            perception = feed.latest(LONG_S)
            tensors = (perception.tokens_TD, perception.kept_T3, perception.changed_T)
            buffers.add(tuple(tensor.untyped_storage().data_ptr() for tensor in tensors))
        assert len(buffers) <= 4, "num_held + 2, whatever is published"
        for _ in range(100):
            feed.latest(LONG_S)
        tracemalloc.start()
        try:
            for _ in range(20):
                feed.latest(LONG_S)
            before_bytes, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(500):
                feed.latest(LONG_S)
            after_bytes, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Other threads may note something meanwhile; a list of 500 of anything would be larger.
        assert after_bytes - before_bytes < 4000 and peak_bytes - before_bytes < 8000


def test_a_picture_that_cannot_be_encoded_ends_nothing(model: VideoLLM) -> None:
    def fit(frame: Frame) -> Frame:
        if frame.index == 1:
            raise RuntimeError("this picture is broken")
        return frame

    source = HandCamera("top")
    with RobotFeed([Camera(source)], model, reuse=NoReuse(), fit=fit) as feed:
        show(feed, (source, plain(0, 0, 0), 0.0))
        source.give(plain(1, 1, 1), 0.1)
        until(lambda: feed.problem is not None)
        assert feed.problem == "a picture cannot be encoded: this picture is broken"
        with pytest.raises(StaleView, match="this picture is broken"):
            feed.latest(0.0)
        show(feed, (source, plain(2, 2, 2), 0.2))
        assert feed.problem is None and feed.latest(LONG_S).pts_s == (0.2,)


def test_a_camera_that_hangs_grows_old_and_comes_back(model: VideoLLM) -> None:
    source = PacedCamera("top", rate_hz=20.0, hangs_at=3)
    with RobotFeed([Camera(source)], model, reuse=NoReuse()) as feed:
        camera = feed.cameras["top"]
        until(lambda: source.is_hanging)  # from here on it is the camera that is slow, and not the machine
        until(lambda: camera.num_pictures == source.stats.num_frames > 0 and is_of_newest(feed))
        last = feed.latest(LONG_S)
        until(lambda: time.monotonic() - last.views[0].captured_s > 0.3)
        with pytest.raises(StaleView, match=r"at most 0\.3 s were .*: the newest picture of camera 'top' is as old"):
            feed.latest(0.3)
        still = feed.latest(LONG_S)
        assert still.number == last.number and still.age_s > 0.3
        assert source.is_hanging and camera.state == "live"
        source.resume()
        until(lambda: feed.latest(LONG_S).number > still.number + 1)
        shown = feed.latest(LONG_S).views[0].frame
        assert shown is not None and shown.index >= 3


def test_a_camera_that_cannot_be_opened_closes_all_others(model: VideoLLM) -> None:
    top = HandCamera("top")
    feed = RobotFeed([Camera(top), Camera("/no/such/film.mp4", "wrist")], model, reuse=NoReuse())
    with pytest.raises(SourceError):
        feed.start()
    assert top.is_closed
    with pytest.raises(ValueError, match="make another"):
        feed.start()


def test_closing_ends_all_threads_and_wakes_who_waits(model: VideoLLM) -> None:
    source = HandCamera("top")
    feed = RobotFeed([Camera(source)], model).start()
    closing = threading.Timer(0.05, feed.close)
    closing.start()
    with pytest.raises(TimeoutError, match="published no new view"):
        feed.read(PATIENCE_S)
    closing.join()
    feed.close()
    names = {thread.name for thread in threading.enumerate()}
    assert source.is_closed and not names & {"millpond robot feed", "millpond camera top"}


def test_a_feed_that_was_closed_is_not_waited_for(model: VideoLLM) -> None:
    feed = RobotFeed([Camera(HandCamera("top"))], model).start()
    closing = threading.Timer(0.05, feed.close)
    closing.start()
    with pytest.raises(TimeoutError, match="the feed saw nothing before it was closed"):
        feed.wait(PATIENCE_S)
    closing.join()


def test_a_jump_of_a_clock_is_flagged_though_its_picture_was_overtaken(model: VideoLLM) -> None:
    feed, top, wrist = two(model)
    with feed:
        show(feed, (top, plain(0, 0, 0), 0.0), (wrist, plain(0, 0, 0), 0.0))
        assert not feed.latest(LONG_S).clock_jumped
        top.give(plain(1, 1, 1), 5000.0)  # no pair, and overtaken by the next
        until(lambda: feed.cameras["top"].num_jumps == 1)
        jumped = feed.cameras["top"].newest
        assert jumped is not None and jumped.clock_jumped and jumped.num_jumps == 1
        show(feed, (top, plain(2, 2, 2), 5000.1), (wrist, plain(2, 2, 2), jumped.pts_s + 0.1))
        perception = feed.latest(LONG_S)
        assert [view.clock_jumped for view in perception.views] == [False, False]
        assert perception.clock_jumped and [view.num_jumps for view in perception.views] == [1, 0]
        assert not feed.latest(LONG_S).clock_jumped, "it was told"


def test_views_hold_what_the_model_was_shown(model: VideoLLM) -> None:
    source = HandCamera("top")

    def fit(frame: Frame) -> Frame:
        return replace(frame, rgb_HW3=np.ascontiguousarray(frame.rgb_HW3[::-1]))

    with RobotFeed([Camera(source)], model, reuse=NoReuse(), fit=fit) as feed:
        picture = world_pictures()[3]
        show(feed, (source, picture, 0.0))
        (view,) = feed.latest(LONG_S).views
        assert view.frame is not None and (view.frame.rgb_HW3 == picture[::-1]).all()


def cameras(*names: str) -> Sequence[Camera]:
    return [Camera(HandCamera(name)) for name in names]


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ((), {}, "a feed needs a camera at least"),
        (("top", "top"), {}, r"a name of its own for each; got \['top', 'top'\]"),
        (("top",), {"when_stale": "ignore"}, "either to 'raise' or to 'flag'; got 'ignore'"),
        (("top",), {"budget_tokens": 0}, "budget_tokens is 1 or more, or None for all there are; got 0"),
        (("top",), {"num_threads": 0}, "encoding takes a thread at least, or None for the feed's own choice; got 0"),
        (("top",), {"num_held": 0}, "num_held is how many takes a perception outlives, 1 or more; got 0"),
        (("top",), {"paired_by": "chance"}, "paired by 'arrival' or by 'pts'; got 'chance'"),
        (("top",), {"fresh_share": 0.0}, "fresh_share is a share of the tokens, above 0 and up to 1; got 0"),
        (("top",), {"always_fresh": {"left": np.ones((1, 1), bool)}}, "there is no camera 'left'; got top"),
        (("top",), {"always_fresh": {"top": np.ones((1, 1))}}, "a mask of what must be fresh is a bool array"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    model: VideoLLM, names: Sequence[str], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RobotFeed(cameras(*names), model, **settings)  # type: ignore[arg-type]


def test_asking_a_feed_without_memory_says_what_to_do(model: VideoLLM) -> None:
    feed = RobotFeed(cameras("top"), model)
    with pytest.raises(ValueError, match="this feed has no memory to ask; got 'Where was it"):
        feed.ask("Where was it?").result(PATIENCE_S)
    with pytest.raises(ValueError, match="there is no camera 'left'; got top"):
        feed.ask("Where was it?", "left")
