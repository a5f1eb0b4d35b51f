"""Whatever befalls a robot's cameras and logs ends in a clear error or a flagged value: what passes for fresh, is."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.encoders import VideoLLM
from millpond.encoders.reuse.none import NoReuse
from millpond.pipeline.robot import Camera, Perception, RobotFeed, StaleView
from millpond.pipeline.robot.camera import Picture
from millpond.pipeline.robot.pairing import Pairing
from millpond.stream import Frame, SourceError

from .clips import RATE_HZ, number_of
from .reuse_clips import load_tiny
from .robot_cameras import PATIENCE_S, HandCamera, dense, plain, until, world_pictures

# Shapes: H rows, W columns, 3 colours.

LONG_S = 1e6
AGE_S = 0.15
HOUR_S = 3600.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))


class Watched:
    """A feed of hand-fed cameras, and all pictures that came of them, so that what it says can be held against them."""

    def __init__(self, model: VideoLLM, *names: str, **settings: object) -> None:
        self.model, self.sources = model, {name: HandCamera(name) for name in names}
        self.came: dict[str, list[Picture]] = {name: [] for name in names}
        self._dense: dict[int, torch.Tensor] = {}
        self.pairing = Pairing(settings.get("pair_tolerance_s", 0.1), settings.get("paired_by", "arrival"))  # type: ignore[arg-type]
        self.flags = settings.get("when_stale") == "flag"
        cameras = [Camera(source) for source in self.sources.values()]
        self.feed = RobotFeed(cameras, model, reuse=NoReuse(), **settings)  # type: ignore[arg-type]

    def __enter__(self) -> Watched:
        self.feed.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.feed.close()

    def show(self, name: str, picture: np.ndarray, pts_s: float, *, wall_s: float | None = None) -> Picture:
        """Gives a camera a picture, and waits until it came."""
        self.sources[name].give(picture, pts_s, wall_s=wall_s)
        camera, number = self.feed.cameras[name], len(self.came[name])
        until(lambda: camera.num_pictures > number)
        assert camera.newest is not None
        self.came[name].append(camera.newest)
        return camera.newest

    def settle(self) -> None:
        """Until the feed has published the newest pictures, or, where they are no pair, refused them."""
        newest = [came[-1] for came in self.came.values()]
        if self.flags or self.pairing.problem(newest) is None:
            numbers = [picture.number for picture in newest]
            until(lambda: (now := self.feed._ring.newest) is not None and [v.number for v in now.views] == numbers)
        else:
            until(lambda: " apart by " in (self.feed._trouble or ""))

    def latest(self, max_age_s: float) -> Perception | None:
        """What the feed passes off as fresh, after holding it against what came; None where it does not."""
        before_s = time.monotonic()
        try:
            perception = self.feed.latest(max_age_s)
        except StaleView as error:
            assert str(error)
            return None
        after_s = time.monotonic()
        pictures = [self.came[view.camera_id][view.number] for view in perception.views]
        oldest_s = min(picture.captured_s for picture in pictures)
        assert before_s - oldest_s <= perception.age_s <= after_s - oldest_s
        expected = torch.cat([self.dense(picture.frame) for picture in pictures])
        torch.testing.assert_close(perception.tokens_TD, expected, atol=0, rtol=0)
        assert [view.clock_jumped for view in perception.views] == [picture.clock_jumped for picture in pictures]
        if perception.is_stale:
            assert perception.problem
            return None
        assert perception.age_s <= max_age_s
        return perception

    def dense(self, frame: Frame) -> torch.Tensor:
        """The model's own tokens of a picture that came."""
        if id(frame) not in self._dense:
            self._dense[id(frame)] = dense(self.model, frame.rgb_HW3)
        return self._dense[id(frame)]


@pytest.mark.parametrize("how", ["hangs", "is lost", "ends"])
@pytest.mark.parametrize("mode", ["raise", "flag"])
def test_a_camera_that_stops_while_the_other_goes_on(model: VideoLLM, how: str, mode: str) -> None:
    """The other's new pictures never make one view of both look fresh; when it comes back, all is well again."""
    with Watched(model, "top", "wrist", when_stale=mode, pair_tolerance_s=AGE_S) as watched:
        watched.show("top", plain(10, 0, 0), 0.0)
        watched.show("wrist", plain(0, 10, 0), 0.0)
        watched.settle()
        if how != "hangs":
            watched.sources["top"].end(ConnectionError("the cable is out") if how == "is lost" else None)
            until(lambda: watched.feed.cameras["top"].state in ("lost", "ended"))
        time.sleep(1.1 * AGE_S)
        for number in range(1, 4):
            watched.show("wrist", plain(0, 10 + number, 0), 0.1 * number)
            watched.settle()
            assert watched.latest(AGE_S) is None
        try:
            told = watched.feed.latest(AGE_S).problem
        except StaleView as error:
            told = str(error)
        assert told is not None and "'top'" in told
        assert how != "is lost" or "the cable is out" in told, "the cause, not what follows of it"
        assert watched.feed.cameras["top"].problem == ("the cable is out" if how == "is lost" else None)
        if how == "hangs":
            until(lambda: is_back(watched))


def is_back(watched: Watched) -> bool:
    """Whether new pictures of all cameras are shown; under load, they may come too far apart to be a pair."""
    for name, came in watched.came.items():
        watched.show(name, plain(20, len(came), 0), came[-1].frame.pts_s + 0.1)
    watched.settle()
    perception = watched.latest(LONG_S)
    return perception is not None and all(
        view.number == watched.came[view.camera_id][-1].number for view in perception.views
    )


@pytest.mark.parametrize("paired_by", ["arrival", "pts"])
@pytest.mark.parametrize("told_s", [HOUR_S, -HOUR_S, 0.05])
def test_a_camera_whose_clock_jumps(
    model: VideoLLM, told_s: float, paired_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Ahead, or back, by much or by little: the jump is flagged where it is, its time goes on from where it was, and
    what it claims makes no picture younger, nor a pair of what is none."""
    with (
        caplog.at_level(logging.WARNING),
        Watched(model, "top", "wrist", when_stale="flag", paired_by=paired_by) as watched,
    ):
        for number in range(3):
            for name in watched.sources:
                watched.show(name, plain(20 * number, 0, 0), 0.1 * number)
        began_s = time.monotonic()
        jumped = watched.show("top", plain(99, 0, 0), told_s)
        watched.show("wrist", plain(99, 0, 0), 0.3)
        watched.settle()
        assert jumped.clock_jumped and watched.feed.cameras["top"].num_jumps == 1
        assert "the clock of camera 'top' jumped" in caplog.text
        assert 0.2 <= jumped.pts_s <= 0.2 + time.monotonic() - watched.came["top"][2].arrived_s
        assert began_s <= jumped.captured_s <= time.monotonic()
        after = watched.show("top", plain(120, 0, 0), told_s + 0.1)
        watched.show("wrist", plain(120, 0, 0), 0.4)
        watched.settle()
        assert not after.clock_jumped and after.pts_s == pytest.approx(jumped.pts_s + 0.1)
        perception = watched.latest(LONG_S)
        if paired_by == "pts" and perception is not None:
            assert abs(perception.pts_s[0] - perception.pts_s[1]) <= watched.pairing.tolerance_s


@pytest.mark.parametrize("by_s", [-HOUR_S, -5.0, HOUR_S])
def test_a_camera_whose_wall_clock_is_wrong(model: VideoLLM, by_s: float) -> None:
    """Behind, its pictures count as old; ahead, they are as old as their arrival, and never younger."""
    with Watched(model, "top") as watched:
        before_s = time.monotonic()
        watched.show("top", plain(9, 9, 9), 0.0, wall_s=time.time() + by_s)
        watched.settle()
        assert watched.latest(LONG_S) is not None
        if by_s < 0:
            assert watched.latest(4.0) is None
        else:
            assert before_s <= watched.came["top"][0].captured_s <= time.monotonic()


def test_cameras_of_different_sizes_and_one_that_changes_its_own(model: VideoLLM) -> None:
    """Each picture is encoded as the model would alone, whatever the others' sizes, and its own before, were."""
    small, wide, tall = world_pictures(), world_pictures(num=6, height=48, width=128), np.zeros((120, 40, 3), np.uint8)
    with Watched(model, "top", "wrist", when_stale="flag", pair_tolerance_s=PATIENCE_S) as watched:
        for number, (top, wrist) in enumerate(
            [(small[1], wide[2]), (wide[3], small[4]), (tall, tall), (small[5], tall)]
        ):
            watched.show("top", top, 0.1 * number)
            watched.show("wrist", wrist, 0.1 * number)
            watched.settle()
            perception = watched.latest(LONG_S)
            assert perception is not None and [view.number for view in perception.views] == [number, number]
            assert perception.num_tokens == sum(rows * columns for rows, columns in perception.grids_hw)


mishaps = st.one_of(
    st.tuples(st.just("give"), st.sampled_from(["top", "wrist"]), st.sampled_from([0.05, 0.1, 2.0, -0.3, HOUR_S])),
    st.tuples(st.just("size"), st.sampled_from(["top", "wrist"]), st.sampled_from([0.1])),
    st.tuples(st.just("wait"), st.just("top"), st.sampled_from([0.01, 0.06])),
    st.tuples(st.just("stop"), st.sampled_from(["top", "wrist"]), st.just(0.0)),
)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["raise", "flag"]),
    st.sampled_from(["arrival", "pts"]),
    st.lists(mishaps, min_size=1, max_size=8),
)
def test_whatever_happens_what_passes_for_fresh_is_fresh(
    model: VideoLLM, mode: str, paired_by: str, happens: list[tuple[str, str, float]]
) -> None:
    """Two cameras, and mishaps in any order. `Watched.latest` holds each perception against the pictures that came."""
    pts_s, ended = {"top": 0.0, "wrist": 0.0}, set()
    with Watched(model, "top", "wrist", when_stale=mode, paired_by=paired_by, pair_tolerance_s=0.05) as watched:
        for number, (what, name, by) in enumerate([("give", "top", 0.1), ("give", "wrist", 0.1), *happens]):
            if what == "wait":
                time.sleep(by)
            elif what == "stop" and name not in ended:
                ended.add(name)
                watched.sources[name].end(ConnectionError("unplugged"))
            elif name not in ended and what in ("give", "size"):
                pts_s[name] += by
                height, width = (72, 40) if what == "size" else (48, 64)
                watched.show(name, plain(number * 9, number * 5, 7, height, width), pts_s[name])
            if all(watched.came.values()):
                watched.settle()
            perception = watched.latest(0.05)
            if perception is not None:
                first, second = (watched.came[view.camera_id][view.number] for view in perception.views)
                apart = abs(first.captured_s - second.captured_s)
                apart = apart if paired_by == "arrival" else abs(first.pts_s - second.pts_s)
                assert apart <= 0.05


def test_a_corrupt_chunk_of_a_log_is_no_older_view(tmp_path: Path) -> None:
    """A recorded camera with a hole in it: while the hole lasts nothing is shown, and every picture that is, is shown
    under its own time."""
    for package in ("mcap", "mcap_ros2", "zstandard", "lz4"):
        pytest.importorskip(package)
    from .robot_logs import chunk_places, spoil, write_log

    path = write_log(tmp_path / "run.mcap")
    offset, length = chunk_places(path)[2]
    bad = spoil(path, offset + length // 2, offset + length // 2 + 20)
    seen: list[Picture] = []
    camera = Camera(str(bad), "cam")

    def keep() -> None:
        if camera.newest is not None and (not seen or seen[-1] is not camera.newest):
            seen.append(camera.newest)

    camera.on_news(keep)  # called from the camera's own thread, so no picture is missed
    with camera:
        until(lambda: camera.state == "ended")
    numbers = [number_of(picture.frame.rgb_HW3) for picture in seen]
    assert numbers == sorted(set(numbers)) and set(range(30)) - set(numbers)
    for number, picture in zip(numbers, seen, strict=True):
        assert picture.pts_s - seen[0].pts_s == pytest.approx((number - numbers[0]) / RATE_HZ, abs=1e-6)
    for (before, first), (after, second) in zip(
        zip(numbers, seen, strict=True), zip(numbers[1:], seen[1:], strict=True), strict=False
    ):
        lost_s = (after - before - 1) / RATE_HZ
        if lost_s:
            assert second.frame.gap_s >= lost_s - 1e-6
            assert second.captured_s - first.captured_s >= 0.9 * lost_s, "the view before it grew as old meanwhile"


def test_a_log_that_cannot_be_read_at_all_is_an_error_at_the_start(model: VideoLLM, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from .robot_logs import CAMERA_KEY, write_v2

    folder = write_v2(tmp_path / "arm", (5,))
    shutil.rmtree(folder / "videos")
    top = HandCamera("top")
    feed = RobotFeed([Camera(top), Camera(str(folder), "episode")], model)
    with pytest.raises(SourceError, match=f"has no video of {CAMERA_KEY}"):
        feed.start()
    assert top.is_closed, "and the other camera is let go"
    with pytest.raises(StaleView, match="has seen nothing yet"):
        feed.latest(LONG_S)
