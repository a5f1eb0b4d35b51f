"""Checks of the camera adapters against the real lerobot; a program, since lerobot has an environment of its own.

Run by test_lerobot_camera.py as `python lerobot_checks.py FOLDER`, with FOLDER for scratch; prints what each check
found as one object of JSON. A check that fails has the traceback for its result.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from lerobot.cameras import Camera as LeRobotCamera
from lerobot.cameras import CameraConfig, ColorMode, make_cameras_from_configs
from lerobot.cameras.opencv import OpenCVCamera, OpenCVCameraConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from millpond.pipeline.robot.camera import Camera, StaleView
from millpond.pipeline.robot.lerobot_camera import LeRobotSource, MillpondCamera, MillpondCameraConfig, lerobot_camera
from millpond.stream import Frame, SourceLost, open_source

HEIGHT, WIDTH, NUM, RATE_HZ = 48, 64, 24, 25.0
WORLD = "synthetic://shapes?seed=3&duration_s=40&rate_hz=10&width=64&height=48"
SHORT = "synthetic://shapes?seed=3&duration_s=0.5&rate_hz=10&width=64&height=48"


def write_clip(path: Path) -> Path:
    """Pictures whose red tells their number, and whose blue is strong."""
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE_HZ, (WIDTH, HEIGHT))
    for number in range(NUM):
        out.write(np.full((HEIGHT, WIDTH, 3), (200, 20, 40 + 8 * number), np.uint8))  # blue, green, red
    out.release()
    return path


def number_of(rgb_HW3: np.ndarray) -> int:
    red, green, blue = rgb_HW3.reshape(-1, 3).mean(axis=0)
    assert green < 60 and blue > 150, (red, green, blue)
    return round((red - 40) / 8)


class ClipCamera(OpenCVCamera):
    """LeRobot's own camera on a clip, at the clip's rate; holds its breath where it is told to, then goes on."""

    holds_at: int | None = None
    num_read = 0

    def hold(self, at: int | None) -> None:
        self.go_on = threading.Event()
        self.holds_at = at

    def _read_from_hardware(self) -> Any:
        if self.num_read == self.holds_at:
            self.go_on.wait(20.0)
        time.sleep(1 / RATE_HZ)
        self.num_read += 1
        return super()._read_from_hardware()


def clip_camera(folder: Path, **settings: Any) -> ClipCamera:
    clip = folder / "clip.avi"
    if not clip.exists():
        write_clip(clip)
    return ClipCamera(OpenCVCameraConfig(index_or_path=clip, warmup_s=0, **settings))


def raised(kind: type[BaseException], act: Callable[[], Any]) -> str:
    try:
        act()
    except kind as error:
        return str(error) or kind.__name__
    raise AssertionError(f"no {kind.__name__}")


def collect(source: LeRobotSource, into: list[Frame]) -> None:
    for frame in source:
        into.append(frame)


def all_of(uri: str) -> set[bytes]:
    return {frame.rgb_HW3.tobytes() for frame in open_source(uri)}


def a_lerobot_camera_is_a_source(folder: Path) -> Any:
    found: dict[str, Any] = {}
    for mode in (ColorMode.RGB, ColorMode.BGR):
        camera = clip_camera(folder, color_mode=mode)
        with LeRobotSource(camera, stream_id="top", patience_s=5.0) as source:
            assert camera.is_connected and source.is_live and source.stream_id == "top"
            frames: list[Frame] = []
            lost = raised(SourceLost, partial(collect, source, frames))  # the clip ends, and LeRobot's thread with it
        assert not camera.is_connected
        numbers = [number_of(frame.rgb_HW3) for frame in frames]
        assert numbers == sorted(set(numbers)) and len(numbers) >= 3, numbers
        times_s = [frame.pts_s for frame in frames]
        assert times_s == sorted(times_s) and times_s[0] == 0 and [f.index for f in frames] == list(range(len(frames)))
        assert all(not frame.gap_s and abs(time.time() - frame.wall_s) < 60 for frame in frames)
        found[mode.value] = [len(numbers), lost]
    return found


def a_picture_that_waited_is_not_new(folder: Path) -> Any:
    camera = clip_camera(folder)
    camera.hold(4)
    with LeRobotSource(camera) as source:
        while camera.num_read < 4:
            time.sleep(0.01)
        time.sleep(0.6)  # nobody takes its last picture meanwhile
        frame = next(iter(source))
        age_s = time.time() - frame.wall_s
        camera.go_on.set()
    assert age_s > 0.5, age_s
    return age_s


def silence_is_flagged_and_then_lost(folder: Path) -> Any:
    camera = clip_camera(folder)
    camera.hold(3)
    threading.Timer(2.0, camera.go_on.set).start()
    with LeRobotSource(camera, patience_s=10.0) as source:
        frames: list[Frame] = []
        raised(SourceLost, partial(collect, source, frames))
    flagged = [frame for frame in frames if frame.gap_s]
    assert len(flagged) == 1 and flagged[0].gap_s > 1.0 and source.stats.num_gaps == 1, [f.gap_s for f in frames]
    camera = clip_camera(folder)
    camera.hold(3)
    with LeRobotSource(camera, patience_s=0.5) as source:
        words = raised(SourceLost, lambda: list(source))
        camera.go_on.set()
    assert "has shown nothing for 0.5 s" in words
    return words


def a_feed_camera_over_lerobot_grows_stale(folder: Path) -> Any:
    camera = clip_camera(folder)
    camera.hold(5)
    with Camera(LeRobotSource(camera), "wrist") as ours:
        picture = ours.async_read(20.0)
        while ours.num_pictures < 2 or camera.num_read < 5:
            time.sleep(0.01)
        time.sleep(0.4)
        words = raised(StaleView, lambda: ours.read_latest(0.2))
        camera.go_on.set()
    return [number_of(picture.frame.rgb_HW3), words]


def a_lost_lerobot_camera_says_why(folder: Path) -> Any:
    missing = OpenCVCamera(OpenCVCameraConfig(index_or_path=folder / "missing.avi"))
    return raised(SourceLost, lambda: LeRobotSource(missing))


def a_source_is_a_lerobot_camera(folder: Path) -> Any:
    config = MillpondCameraConfig(uri=WORLD, color_mode="rgb")
    camera = make_cameras_from_configs({"top": config})["top"]
    assert type(camera) is MillpondCamera and isinstance(camera, LeRobotCamera) and config.type == "millpond"
    assert CameraConfig.get_choice_class("millpond") is MillpondCameraConfig
    assert not camera.is_connected and camera.find_cameras() == []
    for act in (camera.read, camera.async_read, camera.read_latest, camera.disconnect):
        raised(DeviceNotConnectedError, act)
    worlds = all_of(WORLD)
    with camera:
        assert camera.is_connected and (camera.width, camera.height) == (64, 48)
        raised(DeviceAlreadyConnectedError, camera.connect)
        pictures = [
            camera.read(), camera.async_read(), camera.async_read(2000), camera.async_read(timeout_ms=2000),
            camera.read_latest(), camera.read_latest(max_age_ms=5000),
        ]  # fmt: skip
        for rgb_HW3 in pictures:
            assert rgb_HW3.shape == (48, 64, 3) and rgb_HW3.dtype == np.uint8 and rgb_HW3.flags.writeable
            assert rgb_HW3.tobytes() in worlds  # to the last bit
        raised(TimeoutError, lambda: camera.read_latest(max_age_ms=0))
        camera.async_read(2000)
        raised(TimeoutError, lambda: [camera.async_read(timeout_ms=0) for _ in range(2)])
        raised(TypeError, lambda: camera.async_read(timeout_s=1))
        assert abs(time.perf_counter() - camera.latest_timestamp) < 5
    assert not camera.is_connected
    camera.connect()  # and again
    camera.disconnect()
    return len(pictures)


def colours_sizes_and_ends(folder: Path) -> Any:
    plain, turned = (MillpondCamera(MillpondCameraConfig(uri=WORLD, color_mode=mode)) for mode in ("rgb", "bgr"))
    worlds = all_of(WORLD)
    with plain, turned:
        assert plain.read().tobytes() in worlds and turned.read()[:, :, ::-1].tobytes() in worlds
    wide = MillpondCamera(MillpondCameraConfig(uri=WORLD, width=640, height=480))
    size = raised(RuntimeError, wide.connect)
    assert not wide.is_connected
    nothing = MillpondCamera(MillpondCameraConfig(uri=str(folder / "nothing.mp4")))
    gone = raised(ConnectionError, nothing.connect)
    short = MillpondCamera(MillpondCameraConfig(uri=SHORT))
    short.connect()
    deadline_s = time.monotonic() + 20
    while short.is_connected and time.monotonic() < deadline_s:
        time.sleep(0.02)
    ended = raised(DeviceNotConnectedError, short.read_latest)  # never its last picture as if it were new
    short.disconnect()
    return [size, gone, ended]


def a_camera_that_runs_is_looked_through(folder: Path) -> Any:
    with Camera(WORLD, "top") as ours:
        feed = SimpleNamespace(cameras={"top": ours})
        shown = lerobot_camera(feed)
        shown.connect()
        assert shown.read_latest(5000).shape == (48, 64, 3)
        shown.disconnect()
        assert ours.state == "live" and not shown.is_connected
        raised(ValueError, lambda: lerobot_camera(feed, "wrist"))
        two = SimpleNamespace(cameras={"top": ours, "wrist": ours})
        words = raised(ValueError, lambda: lerobot_camera(two))
    mine = lerobot_camera(Camera(WORLD, "mine"))
    with mine:
        assert mine.is_connected
    raised(ConnectionError, mine.connect)  # a camera that was closed is not started again
    return words


def there_and_back(folder: Path) -> Any:
    worlds = all_of(WORLD)
    with LeRobotSource(MillpondCamera(MillpondCameraConfig(uri=WORLD))) as source:
        frames = [frame for frame, _ in zip(source, range(5), strict=False)]
    assert all(frame.rgb_HW3.tobytes() in worlds for frame in frames)
    assert all(b.pts_s >= a.pts_s for a, b in pairwise(frames))
    return len(frames)


CHECKS = (
    a_lerobot_camera_is_a_source,
    a_picture_that_waited_is_not_new,
    silence_is_flagged_and_then_lost,
    a_feed_camera_over_lerobot_grows_stale,
    a_lost_lerobot_camera_says_why,
    a_source_is_a_lerobot_camera,
    colours_sizes_and_ends,
    a_camera_that_runs_is_looked_through,
    there_and_back,
)


def main(folder: Path) -> None:
    results = {}
    for check in CHECKS:
        try:
            results[check.__name__] = {"found": check(folder)}
        except Exception:  # noqa: BLE001 - told to whoever runs this
            results[check.__name__] = {"failed": traceback.format_exc()}
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
