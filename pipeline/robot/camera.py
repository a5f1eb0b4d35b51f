"""Camera: any source as a robot's camera: a thread of its own, the newest picture in one slot, its age beside it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from ...stream import Frame, Source, SourceLost, open_source
from ...stream.redact import redact
from ..paced import PacedSource
from .camera_clock import CameraClock

_log = logging.getLogger(__name__)

CameraState = Literal["new", "live", "ended", "lost", "closed"]

# How late a picture may say it is by `wall_s` before that is a matter of two clocks that disagree: seconds.
_MAX_LATE_S = 60.0


class StaleView(TimeoutError):
    """There is no view as fresh as was asked for: what it is of, how old it is, and why, in one sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Made by a Camera, read by feeds and control loops, written by nobody.

    frame: what the source gave; `frame.pts_s` is what it told.
    camera_id: whose picture it is.
    number: how many pictures of this camera came before it.
    arrived_s: when it came, on `time.monotonic`'s clock.
    captured_s: when it was captured, on the same clock: its arrival, less what it was on its way, as far as the camera
        believes what is told of that.
    pts_s: the camera's own time with jumps taken out; never decreases.
    clock_jumped: whether the camera's clock jumped at this picture.
    num_jumps: how often it had jumped by then.
    gaps_s: how long, up to this picture, nothing of this camera could be seen: the gaps of all that came. So the gap
        before a picture that is overtaken is told by the next.
    """

    frame: Frame
    camera_id: str
    number: int
    arrived_s: float
    captured_s: float
    pts_s: float
    clock_jumped: bool = False
    num_jumps: int = 0
    gaps_s: float = 0.0

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError(f"number counts pictures and must be 0 or more; got {self.number}")
        if not self.captured_s <= self.arrived_s:
            raise ValueError(
                f"a picture is captured before it arrives; got captured_s={self.captured_s}, arrived_s={self.arrived_s}"
            )

    def age_s(self, now_s: float | None = None) -> float:
        """How long ago it was captured; now_s: on `time.monotonic`'s clock, by default now."""
        return max(0.0, (time.monotonic() if now_s is None else now_s) - self.captured_s)

    def __repr__(self) -> str:
        return f"Picture({self.camera_id} {self.number}, {self.frame.width}x{self.frame.height} at {self.pts_s:.3f} s)"


class Camera:
    """One camera of a robot, over any source. `read`, `async_read` and `read_latest` mean what LeRobot's cameras mean.

        source ──thread──▶ [newest picture]          one slot: a new picture replaces the one before, taken or not
                              │  read          waits for the next one that comes
                              │  async_read    the newest that was not taken yet; waits for one
                              └▶ read_latest   the newest, taken or not, at once; refused beyond an age

    A recording is paced by its own times. Nothing ever waits for whoever reads; what nobody takes is counted. A camera
    that stops shows in the age of its newest picture, and `problem` says why. Any thread may call anything; pictures
    are taken by one. The source is the camera's from `start` on, and closed with it.

    >>> with Camera("rtsp://gripper/stream", "wrist") as camera:
    ...     picture = camera.async_read(timeout_s=0.2)

    source: a source, or the address of one, opened by `start`.
    camera_id: by default the source's stream id.
    max_jump_s: how far the camera's clock may run ahead of the arrivals before it counts as a jump.
    trusts_wall: whether a frame's `wall_s` is believed as its time of capture.
    trusts_pts: whether the camera's own clock is believed to go as this machine's does: a picture that comes later, for
        its time, than others did was held up on its way, and is as much older. Not for a simulation that is slower than
        the clock on the wall. Both can make a picture older only.
    """

    def __init__(
        self,
        source: Source | str,
        camera_id: str | None = None,
        *,
        max_jump_s: float = 1.0,
        trusts_wall: bool = True,
        trusts_pts: bool = False,
    ) -> None:
        if camera_id is None:
            camera_id = source.stream_id if isinstance(source, Source) else "camera"
        if not camera_id.strip():
            raise ValueError(f"a camera needs a name; got {camera_id!r}")
        self.camera_id = camera_id
        self._given = source
        self._source: Source | None = None
        self._trusts_wall, self._trusts_pts = trusts_wall, trusts_pts
        self._clock = CameraClock(max_jump_s)
        self._newest: Picture | None = None
        self._num_taken = 0
        self._num_passed = 0  # pictures up to the last one that was taken
        self._state: CameraState = "new"
        self._problem: str | None = None
        self._changed = threading.Condition()
        self._callback: Callable[[], None] = _nothing
        self._thread = threading.Thread(target=self._run, name=f"millpond camera {camera_id}", daemon=True)

    # From any thread.

    def start(self) -> Self:
        """Opens the source and begins to read it. Raises SourceError or SourceLost where it cannot be opened; a camera
        that was closed is not started again."""
        if self._state != "new":
            raise ValueError(f"camera {self.camera_id!r} is {self._state}; got start() again; make another Camera")
        source = open_source(self._given, stream_id=self.camera_id) if isinstance(self._given, str) else self._given
        with self._changed:
            is_wanted = self._state == "new"  # opening takes a while, and it may have been closed meanwhile
            if is_wanted:
                self._source = source if source.is_live else PacedSource(source)
                self._state = "live"
        if not is_wanted:
            source.close()
            raise SourceLost(f"camera {self.camera_id!r} was closed while it was opened")
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends the source and whoever waits, within about 2 s. May be called again."""
        with self._changed:
            self._state = "closed"
            self._changed.notify_all()
        source = self._source or (self._given if isinstance(self._given, Source) else None)
        if source is not None:
            source.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2.0)

    def read(self, timeout_s: float = 10.0) -> Picture:
        """Waits for the next picture that comes, and takes it.

        Raises TimeoutError where none comes within `timeout_s`, and SourceLost where none will.
        """
        with self._changed:
            newest = self._newest
            return self._take_after(-1 if newest is None else newest.number, timeout_s)

    def async_read(self, timeout_s: float = 0.2) -> Picture:
        """Takes the newest picture that was not taken yet; waits for one where there is none.

        Raises TimeoutError where none comes within `timeout_s`, and SourceLost where none will.
        """
        with self._changed:
            return self._take_after(self._num_passed - 1, timeout_s)

    def read_latest(self, max_age_s: float = 0.5) -> Picture:
        """The newest picture, taken or not, at once; it still counts as not taken.

        Raises StaleView, a TimeoutError, where it is older than that, or there is none.
        """
        check_seconds("max_age_s", max_age_s)
        picture = self._newest
        if picture is None:
            raise StaleView(f"camera {self.camera_id!r} has shown nothing yet{self._why()}")
        age_s = picture.age_s()
        if age_s > max_age_s:
            raise StaleView(
                f"the newest picture of camera {self.camera_id!r} is {age_s:.3f} s old, and at most {max_age_s:g} s "
                f"were asked for{self._why()}"
            )
        return picture

    def on_news(self, callback: Callable[[], None]) -> None:
        """From now on calls this, from the camera's thread, when a picture came and when no more will; it must be
        short. Give it before `start`."""
        self._callback = callback

    @property
    def newest(self) -> Picture | None:
        """The newest picture, however old; None before the first."""
        return self._newest

    @property
    def state(self) -> CameraState:
        """ "live" from `start` on; "ended" or "lost" once no picture will come any more, "closed" after `close`."""
        return self._state

    @property
    def problem(self) -> str | None:
        """Why no pictures come, in a sentence without credentials; None where they do, or nobody knows."""
        told = getattr(self._source, "problem", None) if self._problem is None else self._problem
        return None if told is None else redact(str(told))

    @property
    def num_pictures(self) -> int:
        """How many came."""
        newest = self._newest
        return 0 if newest is None else newest.number + 1

    @property
    def num_dropped(self) -> int:
        """How many were replaced by newer ones before anybody took them."""
        with self._changed:
            return self._num_passed - self._num_taken

    @property
    def num_jumps(self) -> int:
        """How often the camera's clock jumped."""
        return self._clock.num_jumps

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Camera({self.camera_id}, {self._state}, {self.num_pictures} pictures)"

    def _take_after(self, number: int, timeout_s: float) -> Picture:
        """Takes the newest picture once it is a later one than this; the condition is held."""
        check_seconds("timeout_s", timeout_s)
        if self._state == "new":
            raise ValueError(f"camera {self.camera_id!r} was not started; got no picture; call start() first")

        def is_there() -> bool:
            return self._newest is not None and self._newest.number > number

        self._changed.wait_for(lambda: is_there() or self._state != "live", timeout_s)
        if not is_there():
            if self._state != "live":
                raise SourceLost(f"camera {self.camera_id!r} is {self._state} and gives no more pictures{self._why()}")
            raise TimeoutError(f"camera {self.camera_id!r} gave no new picture in {timeout_s:g} s{self._why()}")
        picture = self._newest
        assert picture is not None
        if picture.number >= self._num_passed:  # `read_latest` shows pictures too, and takes none
            self._num_taken += 1
            self._num_passed = picture.number + 1
        return picture

    def _why(self) -> str:
        return "" if self.problem is None else f": {self.problem}"

    # The camera's thread, from here on.

    def _run(self) -> None:
        source, state = self._source, "ended"
        assert source is not None
        try:
            for frame in source:
                self._show(frame)
                if self._state == "closed":
                    return
        except Exception as error:  # noqa: BLE001 - whoever waits has to learn of whatever ends this thread
            if not source.is_closed:
                self._problem, state = redact(str(error)) or type(error).__name__, "lost"
        finally:
            self._end(state)

    def _show(self, frame: Frame) -> None:
        arrived_s = time.monotonic()
        late_s = 0.0
        if self._trusts_wall and frame.wall_s is not None and math.isfinite(frame.wall_s):
            late_s = min(max(0.0, time.time() - frame.wall_s), _MAX_LATE_S)
        placed = self._clock.place(frame.pts_s, arrived_s)
        if self._trusts_pts:
            late_s = max(late_s, placed.late_s)
        captured_s = arrived_s - late_s
        if self._newest is not None and frame.pts_s == self._newest.frame.pts_s:
            captured_s = min(captured_s, self._newest.captured_s)  # the same picture again is no younger
        if placed.clock_jumped:
            _log.warning("the clock of camera %r jumped to %.3f s", self.camera_id, frame.pts_s)
        picture = Picture(
            frame,
            self.camera_id,
            self.num_pictures,
            arrived_s,
            captured_s,
            placed.pts_s,
            placed.clock_jumped,
            self._clock.num_jumps,
            frame.gap_s + (0.0 if self._newest is None else self._newest.gaps_s),
        )
        with self._changed:
            self._newest = picture
            self._changed.notify_all()
        self._callback()

    def _end(self, state: str) -> None:
        with self._changed:
            if self._state == "live":
                self._state = "lost" if state == "lost" else "ended"
                why = "it came to its end" if self._problem is None else self._problem
                _log.info("camera %r gives no more pictures: %s", self.camera_id, why)
            self._changed.notify_all()
        self._callback()


def check_seconds(name: str, given_s: float) -> None:
    """Refuses what is no number of seconds to wait or to be old. Raises ValueError."""
    if not given_s >= 0:
        raise ValueError(f"{name} is a number of seconds, 0 or more; got {given_s}")


def _nothing() -> None:
    """What a camera calls that nobody listens to yet."""
