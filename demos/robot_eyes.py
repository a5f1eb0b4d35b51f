"""The simulated robot's cameras: sources of Millpond's, painted by one thread from the world's latest posture."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from robot_scene import TOP, WRIST, Eye, Posture, Scene

from millpond.stream import Frame, Source

PICTURE_PIXELS = 96
"""Height and width: what the built-in model looks at."""


class Moment(NamedTuple):
    """A posture of the world, and when it was, in Unix time: what a picture of it is as old as."""

    posture: Posture
    wall_s: float


class SimCamera(Source):
    """One camera of the scene, live: what it showed last waits, and is replaced by what it shows next.

    `pts_s` is the world's time, `wall_s` this machine's at that moment, so that painting counts into a picture's age.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"mujoco://{name}", stream_id=name, is_live=True)
        self._news = threading.Condition()
        self._waiting: Frame | None = None
        self._num_shown = 0
        self._recent: deque[Frame] = deque(maxlen=32)

    def show(self, rgb: np.ndarray, moment: Moment) -> None:
        """The next picture; from the thread that paints."""
        with self._news:
            frame = Frame(rgb, moment.posture.time_s, self.stream_id, self._num_shown, moment.wall_s)
            self._num_shown += 1
            self._waiting = frame
            self._recent.append(frame)
            self._news.notify_all()

    def shown_at(self, pts_s: float) -> np.ndarray:
        """Which of the last pictures is of this time, or else the newest: for whoever films."""
        with self._news:
            frames = list(self._recent)
        return next((frame for frame in frames if abs(frame.pts_s - pts_s) < 1e-6), frames[-1]).rgb_HW3

    def __iter__(self) -> Iterator[Frame]:
        self.check_open()
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting is not None or self.is_closed)
                if self.is_closed:
                    return
                frame, self._waiting = self._waiting, None
            assert frame is not None
            self.stats.num_frames += 1
            yield frame

    def close(self) -> None:
        super().close()
        with self._news:
            self._news.notify_all()


class Studio:
    """The thread that paints what both cameras see, `rate_hz` times a second, from the posture it was told last."""

    def __init__(self, scene: Scene, rate_hz: float) -> None:
        self.cameras = {name: SimCamera(name) for name in (TOP, WRIST)}
        self._model, self._rate_hz = scene.model, rate_hz
        self._moment = Moment(scene.posture(), time.time())
        self._unplugged: frozenset[str] = frozenset()
        self._closed = threading.Event()
        self._ready = threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="simulated cameras", daemon=True)

    def start(self, within_s: float = 120.0) -> None:
        """Begins to paint, and waits for the first pictures: a renderer on the CPU takes seconds to come up."""
        self._thread.start()
        self._ready.wait(within_s)
        if self._problem is not None or not self._ready.is_set():
            raise RuntimeError(
                f"nothing can be rendered: {self._problem or f'no picture in {within_s:g} s'}; without a screen this "
                "needs EGL (Debian: libegl1, libgl1 and libgl1-mesa-dri)"
            ) from self._problem

    def tell(self, posture: Posture) -> None:
        """How the world is now; from the control loop's thread."""
        self._moment = Moment(posture, time.time())

    def unplug(self, *names: str) -> None:
        """These cameras show nothing from now on, and all others do."""
        self._unplugged = frozenset(names)

    def _run(self) -> None:
        try:
            eye = Eye(self._model, PICTURE_PIXELS, PICTURE_PIXELS)
        except Exception as error:  # noqa: BLE001 - what keeps OpenGL from coming up has no one type; it is raised there
            self._problem = error
            self._ready.set()
            return
        try:
            while not self._closed.is_set():
                began_s = time.monotonic()
                moment, unplugged = self._moment, self._unplugged
                for name, camera in self.cameras.items():
                    if name not in unplugged:
                        camera.show(eye.look(moment.posture, name), moment)
                self._ready.set()
                self._closed.wait(max(0.0, began_s + 1 / self._rate_hz - time.monotonic()))
        finally:
            eye.close()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        for camera in self.cameras.values():
            camera.close()
