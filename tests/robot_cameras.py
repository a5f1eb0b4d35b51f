"""Cameras for tests of the robot feed: real sources that tests hand frames to, or that run at a rate and misbehave."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from threading import Condition

import numpy as np
import torch

from millpond.encoders import VideoLLM
from millpond.pipeline.robot import RobotFeed
from millpond.stream import Frame, Source
from millpond.stream.render import render
from millpond.stream.world import make_world

# Shapes: N pictures, H rows, W columns, 3 colours.

PATIENCE_S = 120.0
"""How long what must come about may take."""

WORLD_RATE_HZ = 10.0
"""How many pictures of its world a camera has for each of the world's seconds."""


def until(is_so: Callable[[], bool]) -> None:
    """Waits for it; AssertionError where it does not come about."""
    ends_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends_s, "it did not come about"
        time.sleep(0.002)


def dense(model: VideoLLM, rgb_HW3: np.ndarray) -> torch.Tensor:
    """The model's own tokens of a picture, those that stand on its grid: (T, D)."""
    (tokens,) = model.see([Frame(rgb_HW3, 0.0)])
    return tokens.x_TD[tokens.kept_T < tokens.grid_hw[0] * tokens.grid_hw[1]]


def is_of_newest(feed: RobotFeed) -> bool:
    """Whether the newest picture of every camera is published."""
    newest = feed._ring.newest
    numbers = {name: camera.num_pictures - 1 for name, camera in feed.cameras.items()}
    return newest is not None and {view.camera_id: view.number for view in newest.views} == numbers


def show(feed: RobotFeed, *given: tuple[HandCamera, np.ndarray] | tuple[HandCamera, np.ndarray, float]) -> None:
    """Each camera shows a picture, at a time of its own where that is given, and the feed publishes what comes of
    all."""
    before = {source.stream_id: feed.cameras[source.stream_id].num_pictures for source, *_ in given}
    for source, rgb_HW3, *pts_s in given:
        source.give(rgb_HW3, pts_s[0] if pts_s else None)
    until(lambda: all(feed.cameras[name].num_pictures > num for name, num in before.items()))
    until(lambda: is_of_newest(feed))


@cache
def world_pictures(seed: int = 3, num: int = 40, height: int = 48, width: int = 64) -> np.ndarray:
    """Pictures of a synthetic world in which things come and move, (num, height, width, 3), painted once."""
    world = make_world(seed, duration_s=num / WORLD_RATE_HZ, step_s=0.5, aspect=width / height)
    return render(world, [n / WORLD_RATE_HZ for n in range(num)], width=width, height=height).rgb_NHW3


@cache
def panned_pictures(seed: int = 3, num: int = 40, height: int = 48, width: int = 64, step: int = 3) -> np.ndarray:
    """What a camera sees that is itself moved, as one on a wrist is: all slides `step` pixels each time."""
    still = world_pictures(seed, num, height, width)[-1]
    return np.stack([np.roll(still, step * n, axis=1) for n in range(num)])


@cache
def plain(red: int, green: int, blue: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture of one colour."""
    return np.full((height, width, 3), (red, green, blue), np.uint8)


class HandCamera(Source):
    """A live camera that shows what the test gives it, and keeps its connection meanwhile.

    Frames wait in order: what overtakes what is for those who read.
    """

    def __init__(self, camera_id: str = "hand") -> None:
        super().__init__(f"hand://{camera_id}", stream_id=camera_id, is_live=True)
        self._waiting: deque[Frame] = deque()
        self._news = Condition()
        self._is_ended = False
        self._problem: Exception | None = None
        self._num_given = 0
        self._num_taken = 0

    def give(
        self, rgb_HW3: np.ndarray, pts_s: float | None = None, *, wall_s: float | None = None, gap_s: float = 0.0
    ) -> Frame:
        """Shows one more picture; its time is by default a tenth of a second after the one before.

        wall_s: when it says that it was captured, in Unix time. gap_s: how long nothing could be seen before it.
        """
        with self._news:
            index = self._num_given
            told_s = 0.1 * index if pts_s is None else pts_s
            frame = Frame(rgb_HW3, told_s, self.stream_id, index, wall_s, gap_s=gap_s)
            self._num_given += 1
            self._waiting.append(frame)
            self._news.notify_all()
        return frame

    def end(self, problem: Exception | None = None) -> None:
        """No more comes: the recording is over, or the problem is raised where frames are read."""
        with self._news:
            self._is_ended, self._problem = True, problem
            self._news.notify_all()

    def wait_taken(self, within_s: float = 20.0) -> None:
        """Until all that was given was taken; AssertionError where nobody takes it."""
        with self._news:
            taken = self._news.wait_for(lambda: self._num_taken == self._num_given, within_s)
        assert taken, f"{self._num_given - self._num_taken} frames of {self.stream_id} were not taken in {within_s} s"

    def __iter__(self) -> Iterator[Frame]:
        self.check_open()
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._is_ended or self.is_closed)
                if self.is_closed:
                    return
                if not self._waiting:
                    if self._problem is not None:
                        raise self._problem
                    return
                frame = self._waiting.popleft()
                self.stats.num_frames += 1
                self._num_taken += 1
                self._news.notify_all()
            yield frame

    def close(self) -> None:
        super().close()
        with self._news:
            self._news.notify_all()


class PacedCamera(Source):
    """A live camera that shows a world at `rate_hz` by this machine's clock, and fails as it is told to.

    As a camera does, it does not wait for who is slow: pictures whose time is over are skipped, and their numbers
    with them. It goes round and round its pictures.

    pictures: (num, height, width, 3).
    start_s: the time that its own clock tells first.
    jumps: by frame number, how far its clock jumps there, in seconds; below 0 it jumps back, and breaks the promise
        that times of a source never decrease.
    hangs_at: the frame number from which on nothing comes, with the connection kept, until `resume`.
    fails_at, problem: the frame number that raises this instead; ends_at: the frame number that ends the stream.
    """

    def __init__(
        self,
        camera_id: str = "top",
        pictures_NHW3: np.ndarray | None = None,
        *,
        rate_hz: float = 20.0,
        start_s: float = 0.0,
        jumps: Mapping[int, float] | None = None,
        hangs_at: int | None = None,
        fails_at: int | None = None,
        problem: Exception | None = None,
        ends_at: int | None = None,
    ) -> None:
        super().__init__(f"paced://{camera_id}", stream_id=camera_id, is_live=True)
        self.pictures_NHW3 = world_pictures() if pictures_NHW3 is None else pictures_NHW3
        self.rate_hz, self.start_s = rate_hz, start_s
        self.jumps = dict(jumps or {})
        self.hangs_at, self.fails_at, self.ends_at = hangs_at, fails_at, ends_at
        self._ending = problem or ConnectionError(f"{camera_id} was unplugged")
        self._go_on = Condition()
        self._is_hanging = False

    @property
    def is_hanging(self) -> bool:
        """Whether it shows nothing just now, as it was told to."""
        return self._is_hanging

    def resume(self) -> None:
        """A camera that hangs goes on."""
        with self._go_on:
            self.hangs_at = None
            self._go_on.notify_all()

    def picture(self, index: int) -> np.ndarray:
        """What the frame with this number shows."""
        return self.pictures_NHW3[index % len(self.pictures_NHW3)]

    def told_pts_s(self, index: int) -> float:
        """What its clock says when it shows the frame with this number."""
        return self.start_s + index / self.rate_hz + sum(by for at, by in self.jumps.items() if at <= index)

    def __iter__(self) -> Iterator[Frame]:
        self.check_open()
        began_s, index = time.monotonic(), 0
        while not self.is_closed:
            due_s = began_s + index / self.rate_hz - time.monotonic()
            if due_s > 0 and self._closed.wait(due_s):
                return
            if self._reached(self.ends_at, index):
                return
            if self._reached(self.fails_at, index):
                raise self._ending
            if self._reached(self.hangs_at, index):
                self._hang()
                continue
            self.stats.num_frames += 1
            yield Frame(self.picture(index), self.told_pts_s(index), self.stream_id, index)
            index = self._next_index(index, began_s)

    def _next_index(self, index: int, began_s: float) -> int:
        """The picture of now, but never past one at which something is to happen."""
        now = int((time.monotonic() - began_s) * self.rate_hz)
        marks = [at for at in (*self.jumps, self.hangs_at, self.fails_at, self.ends_at) if at is not None]
        return max(index + 1, min([now, *(at for at in marks if at > index)]))

    @staticmethod
    def _reached(mark: int | None, index: int) -> bool:
        return mark is not None and index >= mark

    def _hang(self) -> None:
        with self._go_on:
            self._is_hanging = True
            self._go_on.wait_for(lambda: self.hangs_at is None or self.is_closed)
            self._is_hanging = False

    def close(self) -> None:
        super().close()
        with self._go_on:
            self._go_on.notify_all()
