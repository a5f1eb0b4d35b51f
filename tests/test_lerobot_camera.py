"""The camera adapters: against the real lerobot in its own environment, and what is to be had without it.

Set MILLPOND_LEROBOT_PYTHON to a Python that has lerobot, PyAV and Pillow; see lerobot_checks.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millpond.pipeline
import millpond.stream
from millpond.pipeline.robot.lerobot_camera import LeRobotSource
from millpond.stream import Frame, SourceError, SourceLost

CHECKS = Path(__file__).parent / "lerobot_checks.py"
LEROBOT = os.environ.get("MILLPOND_LEROBOT_PYTHON", "")
NAMES = (
    "a_lerobot_camera_is_a_source",
    "a_picture_that_waited_is_not_new",
    "silence_is_flagged_and_then_lost",
    "a_feed_camera_over_lerobot_grows_stale",
    "a_lost_lerobot_camera_says_why",
    "a_source_is_a_lerobot_camera",
    "colours_sizes_and_ends",
    "a_camera_that_runs_is_looked_through",
    "there_and_back",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the checks found, in the environment that has lerobot. Millpond is shown to it as a folder of links."""
    if not LEROBOT:
        pytest.skip("MILLPOND_LEROBOT_PYTHON names no Python that has lerobot")
    folder = tmp_path_factory.mktemp("lerobot")
    (folder / "path" / "millpond").mkdir(parents=True)
    for package in ("stream", "memory", "encoders", "pipeline"):
        home = Path(millpond.stream.__file__).parent.parent / package
        (folder / "path" / "millpond" / package).symlink_to(home)
    run = subprocess.run(
        [LEROBOT, str(CHECKS), str(folder)],
        env={**os.environ, "PYTHONPATH": str(folder / "path"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert set(told) == set(NAMES)
    return told


@pytest.mark.parametrize("name", NAMES)
def test_against_the_real_lerobot(found: dict[str, Any], name: str) -> None:
    assert "failed" not in found[name], found[name]["failed"]


def test_errors_say_what_happened(found: dict[str, Any]) -> None:
    def of(name: str) -> Any:
        return found[name]["found"]

    assert "is lost:" in of("a_lerobot_camera_is_a_source")["rgb"][1]
    assert "cannot be connected" in of("a_lost_lerobot_camera_says_why")
    size, gone, ended = of("colours_sizes_and_ends")
    assert "shows 64x48 pixels, and 640x480 were configured" in size
    assert "no file or folder at" in gone and "is not connected" in ended
    assert "choose one of top, wrist" in of("a_camera_that_runs_is_looked_through")


class QuietCamera:
    """What LeRobot's cameras have in common, with pictures given by hand."""

    def __init__(self, *pictures: object) -> None:
        self.pictures = list(pictures)
        self.is_connected = False

    def connect(self) -> None:
        self.is_connected = True

    def disconnect(self) -> None:
        self.is_connected = False

    def async_read(self, timeout_ms: float = 200) -> object:
        if not self.pictures:
            time.sleep(timeout_ms / 1000)
            raise TimeoutError
        return self.pictures.pop(0)


def test_no_lerobot_is_needed_for_its_cameras_as_sources() -> None:
    pictures = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2, 3)]
    camera = QuietCamera(*pictures)
    with LeRobotSource(camera, patience_s=0.3) as source:
        frames: list[Frame] = []
        with pytest.raises(SourceLost, match=r"has shown nothing for 0\.3 s"):
            for frame in source:
                frames.append(frame)
    assert [frame.rgb_HW3[0, 0, 0] for frame in frames] == [1, 2, 3] and not camera.is_connected
    pictures[0][:] = 9  # a buffer that the camera fills again
    assert frames[0].rgb_HW3[0, 0, 0] == 1
    assert "lerobot" not in sys.modules


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.uint16), np.zeros((4, 6, 4), np.uint8), "picture", None],
)
def test_what_is_no_picture_is_refused(picture: object) -> None:
    with LeRobotSource(QuietCamera(picture)) as source, pytest.raises(SourceError, match="no colour pictures; got"):
        next(iter(source))


def test_what_is_no_camera_is_refused() -> None:
    with pytest.raises(
        ValueError, match="a camera of LeRobot has connect, async_read, disconnect, is_connected; got int"
    ):
        LeRobotSource(3)
    with pytest.raises(ValueError, match="patience_s is a number of seconds above 0; got 0"):
        LeRobotSource(QuietCamera(), patience_s=0)


def test_a_camera_that_was_connected_stays_connected() -> None:
    camera = QuietCamera()
    camera.connect()
    with LeRobotSource(camera):
        pass
    assert camera.is_connected


def test_the_classes_of_lerobot_ask_for_it_by_name() -> None:
    code = (
        "import sys; sys.modules['lerobot'] = None\n"
        "import millpond.pipeline, millpond.pipeline.robot.lerobot_camera as adapter\n"
        "adapter.MillpondCamera"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra: LeRobot's cameras need lerobot; pip install lerobot" in run.stderr


class OneBufferCamera(QuietCamera):
    """Writes each of its pictures over the one before, and shows some twice."""

    def __init__(self, *values: int, tells_time: bool) -> None:
        super().__init__(*values)
        self.latest_frame = np.zeros((4, 6, 3), np.uint8)
        self.latest_timestamp: float | None = None
        self._tells_time = tells_time

    def async_read(self, timeout_ms: float = 200) -> object:
        value = super().async_read(timeout_ms)
        if not (self.latest_frame == value).all():
            self.latest_frame[:] = value
            self.latest_timestamp = time.perf_counter() if self._tells_time else None
        return self.latest_frame


def test_a_camera_with_one_buffer_shows_each_picture_once_where_it_tells_their_times() -> None:
    with LeRobotSource(OneBufferCamera(1, 1, 2, 3, 3, tells_time=True), patience_s=0.3) as source:
        frames: list[Frame] = []
        with pytest.raises(SourceLost, match=r"has shown nothing for 0\.3 s"):
            for frame in source:
                frames.append(frame)
    assert [int(frame.rgb_HW3[0, 0, 0]) for frame in frames] == [1, 2, 3]
    times_s = [frame.pts_s for frame in frames]
    assert times_s == sorted(set(times_s))


def test_a_camera_that_shows_the_same_array_for_ever_is_lost() -> None:
    camera = OneBufferCamera(*[1] * 10**6, tells_time=False)
    with LeRobotSource(camera, patience_s=0.2) as source, pytest.raises(SourceLost, match="has shown nothing for"):
        assert [int(frame.rgb_HW3[0, 0, 0]) for frame in source] == [1]
