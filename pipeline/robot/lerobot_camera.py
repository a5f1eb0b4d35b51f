"""LeRobot's cameras and Millpond's, each as the other: LeRobotSource, and MillpondCamera, made where LeRobot is.

Nothing here imports `lerobot` before one of its names is asked for. Checked against lerobot 0.4.4 and 0.6.1.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...stream import Frame, Source, SourceError, SourceLost
from ...stream.require import require
from .camera import Camera

if TYPE_CHECKING:
    from .feed import RobotFeed

_log = logging.getLogger(__name__)

# Shapes: H rows of pixels, W columns, 3 colours.

_POLL_S = 0.2
_GAP_S = 1.0  # a camera that shows nothing for longer was away


class LeRobotSource(Source):
    """A camera of LeRobot as a live source: anything with its methods, of whatever make.

        LeRobot's own reading thread -> its newest frame -> async_read here -> Frame

    A picture's time is that of its capture where the camera tells it (`latest_timestamp`), so one that waited is not
    taken for new: `pts_s` counts from the first picture, `wall_s` is the time of day. A camera that falls silent for
    more than a second flags the next frame with `gap_s`; one that is silent for `patience_s`, or fails, is lost.

    camera: it is connected here where it is not yet, and then also disconnected by `close`.
    patience_s: how long a silent camera is waited for.
    """

    def __init__(self, camera: Any, *, stream_id: str | None = None, patience_s: float = 10.0) -> None:
        missing = [
            name for name in ("connect", "async_read", "disconnect", "is_connected") if not hasattr(camera, name)
        ]
        if missing:
            raise ValueError(f"a camera of LeRobot has {', '.join(missing)}; got {type(camera).__name__}")
        if not patience_s > 0:
            raise ValueError(f"patience_s is a number of seconds above 0; got {patience_s}")
        super().__init__(f"lerobot-camera://{type(camera).__name__}", stream_id=stream_id or "camera", is_live=True)
        self.patience_s = patience_s
        self._camera = camera
        self._is_ours = not camera.is_connected
        self._first_s: float | None = None  # captures of the first and of the last picture
        self._seen_s: float | None = None
        self._index = -1
        if self._is_ours:
            try:
                camera.connect()
            except (OSError, RuntimeError, ValueError) as error:
                raise SourceLost(f"{camera} cannot be connected: {error}") from error

    def __iter__(self) -> Iterator[Frame]:
        self.check_open()
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        last: object = self  # no picture
        last_s = time.perf_counter()
        last_told_s: float | None = None
        while not self.is_closed:
            before_s = self._told_s()
            try:
                picture = self._camera.async_read(timeout_ms=1000 * min(_POLL_S, self.patience_s))
            except TimeoutError:
                if self.is_closed:
                    return
                self._check_silence(last_s)
                continue
            except (OSError, RuntimeError) as error:
                if self.is_closed:
                    return
                raise SourceLost(f"{self._camera} is lost: {error}") from error
            told_s = self._told_s()
            if picture is last and not self._is_written_anew(picture, told_s, last_told_s):
                # LeRobot's thread stores a frame before it announces it, and so may show it twice.
                self._check_silence(last_s)
                continue
            seen_s = self._seen_s
            captured_s = self._captured_s(picture, before_s)
            captured_s = captured_s if seen_s is None else max(captured_s, seen_s)
            gap_s = 0.0 if seen_s is None or captured_s - seen_s <= _GAP_S else captured_s - seen_s
            if gap_s:
                self.stats.num_gaps += 1
                self.stats.gap_s += gap_s
            last, last_s, last_told_s, self._seen_s = picture, time.perf_counter(), told_s, captured_s
            yield self._frame(picture, captured_s, gap_s)

    def _frame(self, picture: Any, captured_s: float, gap_s: float) -> Frame:
        if (
            not isinstance(picture, np.ndarray)
            or picture.ndim != 3
            or picture.shape[2] != 3
            or picture.dtype != np.uint8
        ):
            got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise SourceError(f"{self._camera} gives no colour pictures; got {got}, wanted uint8 (height, width, 3)")
        if self._first_s is None:
            self._first_s = captured_s
        age_s = time.perf_counter() - captured_s
        self._index += 1
        self.stats.num_frames += 1
        self.stats.lag_s = age_s
        is_bgr = getattr(getattr(self._camera, "color_mode", None), "value", None) == "bgr"
        # A copy: some cameras write the next picture into the same buffer.
        rgb_HW3 = np.array(picture[:, :, ::-1] if is_bgr else picture)
        return Frame(rgb_HW3, captured_s - self._first_s, self.stream_id, self._index, time.time() - age_s, None, gap_s)

    def _captured_s(self, picture: Any, before_s: float | None) -> float:
        """When the picture was captured, on `time.perf_counter`'s clock; where that is not known for sure, the older of
        what it may be.

        The camera's thread writes its newest picture first, its time after: where the picture is still the newest once
        the time was read, the time is the picture's.
        """
        now_s, told_s = time.perf_counter(), self._told_s()
        if told_s is not None and getattr(self._camera, "latest_frame", None) is picture:
            return min(told_s, now_s)
        return now_s if before_s is None else min(before_s, now_s)

    def _is_written_anew(self, picture: Any, told_s: float | None, last_told_s: float | None) -> bool:
        """Whether the camera wrote its next picture over the last one: only its time then tells them apart."""
        return told_s is not None and told_s != last_told_s and getattr(self._camera, "latest_frame", None) is picture

    def _check_silence(self, since_s: float) -> None:
        """Raises SourceLost where nothing new was shown for too long."""
        if time.perf_counter() - since_s > self.patience_s:
            self.stats.num_stalls += 1
            raise SourceLost(f"{self._camera} has shown nothing for {self.patience_s:g} s") from None

    def _told_s(self) -> float | None:
        told_s = getattr(self._camera, "latest_timestamp", None)
        return told_s if isinstance(told_s, float) else None

    def close(self) -> None:
        was_closed = self.is_closed
        super().close()
        if not was_closed and self._is_ours and self._camera.is_connected:
            try:
                self._camera.disconnect()
            except (OSError, RuntimeError) as error:
                _log.warning("%s cannot be disconnected: %s", self._camera, error)


def lerobot_camera(camera: Camera | RobotFeed, camera_id: str | None = None) -> Any:
    """A Millpond camera, or one of a feed, as a camera of LeRobot.

    One that runs already, such as a feed's, is looked through and stays its owner's; one that does not is started by
    `connect` and closed by `disconnect`.

    camera_id: which of the feed's; may be left out where it has one.
    """
    if not isinstance(camera, Camera):
        cameras = camera.cameras
        if camera_id is None and len(cameras) > 1:
            raise ValueError(f"the feed has several cameras; got no camera_id; choose one of {', '.join(cameras)}")
        name = next(iter(cameras)) if camera_id is None else camera_id
        if name not in cameras:
            raise ValueError(f"the feed has no camera {name!r}; got {', '.join(cameras)}")
        camera = cameras[name]
    made = _classes()
    return made.camera(made.config(uri=camera.camera_id), camera)


class _Classes(NamedTuple):
    camera: type
    config: type


@cache
def _classes() -> _Classes:
    """The two classes that LeRobot wants, on its base classes."""
    cameras = require("lerobot.cameras", who="LeRobot's cameras", extra=None)
    errors = require("lerobot.utils.errors", who="LeRobot's cameras", extra=None)

    @cameras.CameraConfig.register_subclass("millpond")
    @dataclasses.dataclass(kw_only=True)
    class MillpondCameraConfig(cameras.CameraConfig):  # type: ignore[misc, name-defined]
        """A Millpond source as a camera of LeRobot.

        uri: what `millpond.stream.open_source` takes: rtsp://..., device://0, a file, mcap://...
        color_mode: of the arrays.
        warmup_s: how long `connect` waits for the first picture.
        """

        uri: str
        color_mode: Any = cameras.ColorMode.RGB
        warmup_s: float = 10.0

        def __post_init__(self) -> None:
            if not self.uri:
                raise ValueError("uri names what the camera shows; got none")
            self.color_mode = cameras.ColorMode(self.color_mode)

    # LeRobot looks for the camera's class in the module that is called so without `config_`: in this one.
    MillpondCameraConfig.__module__ = f"{__package__}.config_lerobot_camera"

    class MillpondCamera(cameras.Camera):  # type: ignore[misc, name-defined]
        """A Millpond source, or a camera that runs already, with the methods of LeRobot's cameras: what they are
        given, give and raise is LeRobot's.

        latest_timestamp: the capture of the newest picture, on `time.perf_counter`'s clock, as LeRobot's own have it.
        """

        __module__ = __name__

        def __init__(self, config: MillpondCameraConfig, camera: Camera | None = None) -> None:
            super().__init__(config)
            self.config = config
            self._given = camera
            self._camera: Camera | None = None
            self._is_ours = False

        def __str__(self) -> str:
            return f"MillpondCamera({self.config.uri if self._given is None else self._given.camera_id})"

        @property
        def is_connected(self) -> bool:
            return self._camera is not None and self._camera.state == "live"

        @staticmethod
        def find_cameras() -> list[dict[str, Any]]:
            """None: a source is given by its address."""
            return []

        @property
        def latest_timestamp(self) -> float | None:
            newest = None if self._camera is None else self._camera.newest
            return None if newest is None else time.perf_counter() - newest.age_s()

        def connect(self, warmup: bool = True) -> None:
            if self.is_connected:
                raise errors.DeviceAlreadyConnectedError(f"{self} is already connected.")
            camera = self._given or Camera(self.config.uri, camera_id="lerobot")
            self._is_ours = camera.state != "live"
            try:
                if self._is_ours:
                    camera.start()
                self._camera = camera
                if warmup:
                    self._warm_up(camera)
            except (ValueError, ConnectionError, TimeoutError) as error:
                self._let_go()
                raise ConnectionError(f"Failed to open {self}: {error}") from error
            except BaseException:
                self._let_go()
                raise

        def read(self, color_mode: Any = None) -> np.ndarray:
            return self._pixels(lambda camera: camera.read(10.0), color_mode)

        # LeRobot counts in milliseconds, and its callers say so by name.

        def async_read(self, *given: float, **named: float) -> np.ndarray:
            wait_s = _seconds("timeout_ms", 200, given, named)
            return self._pixels(lambda camera: camera.async_read(wait_s))

        def read_latest(self, *given: float, **named: float) -> np.ndarray:
            age_s = _seconds("max_age_ms", 500, given, named)

            def newest(camera: Camera) -> Any:
                if camera.newest is None:
                    raise RuntimeError(f"{self} has not captured any frames yet.")
                return camera.read_latest(age_s)

            return self._pixels(newest)

        def disconnect(self) -> None:
            if self._camera is None:
                raise errors.DeviceNotConnectedError(f"{self} not connected.")
            self._let_go()

        def _warm_up(self, camera: Camera) -> None:
            """Waits for the first picture; takes its measures for those that were not given, or holds it to them."""
            picture = camera.newest or camera.async_read(self.config.warmup_s)
            frame = picture.frame
            wanted = (self.config.width or frame.width, self.config.height or frame.height)
            if wanted != (frame.width, frame.height):
                raise RuntimeError(
                    f"{self} shows {frame.width}x{frame.height} pixels, and {wanted[0]}x{wanted[1]} were configured."
                )
            self.width, self.height = wanted

        def _pixels(self, take: Any, color_mode: Any = None) -> np.ndarray:
            if not self.is_connected:
                problem = None if self._camera is None else self._camera.problem
                told = f": {problem}" if problem else ". Run `.connect()` first."
                raise errors.DeviceNotConnectedError(f"{self} is not connected{told}")
            try:
                frame = take(self._camera).frame
            except SourceLost as error:
                raise errors.DeviceNotConnectedError(str(error)) from error
            if (self.width or frame.width, self.height or frame.height) != (frame.width, frame.height):
                raise RuntimeError(
                    f"{self} frame width={frame.width} or height={frame.height} do not match configured "
                    f"width={self.width} or height={self.height}."
                )
            mode = cameras.ColorMode(color_mode or self.config.color_mode)
            # A copy: LeRobot's are their taker's to write to.
            return np.array(frame.rgb_HW3[:, :, ::-1] if mode is cameras.ColorMode.BGR else frame.rgb_HW3)

        def _let_go(self) -> None:
            camera, self._camera = self._camera, None
            if self._is_ours and camera is not None:
                camera.close()
            self.width, self.height = self.config.width, self.config.height

    return _Classes(MillpondCamera, MillpondCameraConfig)


def _seconds(name: str, default: float, given: tuple[float, ...], named: dict[str, float]) -> float:
    """LeRobot's one number of milliseconds, in seconds. TypeError for anything besides, as Python has it."""
    others = [key for key in named if key != name]
    if others or len(given) + len(named) > 1:
        raise TypeError(f"there is one argument, {name}; got {[*given, *named]}")
    return (given[0] if given else named.get(name, default)) / 1000


def __getattr__(name: str) -> Any:
    """MillpondCamera and MillpondCameraConfig, made when they are first asked for, since they need LeRobot."""
    found = {"MillpondCamera": "camera", "MillpondCameraConfig": "config"}.get(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_classes(), found)
