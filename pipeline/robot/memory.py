"""RobotMemory: what the robot saw, remembered beside the feed, so that it can be asked while the feed runs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from ...stream import Frame, FrameBuffer, RateSampler, SourceStats
from ...stream.frame import carry_gap
from ..answer import Answer
from ..engine import Engine
from ..feeds import Feed
from ..hub import Hub
from ..question import Question
from .camera import Picture


class RobotMemory(ABC):
    """A session for each camera, fed with pictures of it and asked at any moment.

    Promises: `offer` and `ask` never wait, whatever the memory is doing; of each camera one picture waits at most, and
    a newer one replaces it; what cannot be answered is the future's exception. `offer` is called by one thread, the
    rest from anywhere.
    """

    @abstractmethod
    def open(self, camera_ids: Sequence[str]) -> None:
        """Begins to remember these cameras. The feed calls it once."""

    @abstractmethod
    def offer(self, picture: Picture) -> None:
        """Shows a picture; it is remembered where it is due."""

    @abstractmethod
    def ask(self, camera_id: str, question: Question) -> Future[Answer]:
        """Asks what one camera saw."""

    @property
    @abstractmethod
    def num_taken(self) -> int:
        """How many pictures were taken to be remembered."""

    @property
    def num_threads(self) -> int:
        """How many cores it answers on, that a feed which encodes on the same processor had better leave to it."""
        return 0

    @property
    def problem(self) -> str | None:
        """Why nothing is remembered any more, in a sentence; None where it is."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Ends it; questions that are open fail. May be called again."""


class NoMemory(RobotMemory):
    """Nothing is remembered: a feed that only sees."""

    def open(self, camera_ids: Sequence[str]) -> None:
        """There is nothing to open."""

    def offer(self, picture: Picture) -> None:
        """The picture is let go."""

    def ask(self, camera_id: str, question: Question) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.set_exception(
            ValueError(f"this feed has no memory to ask; got {question.text[:80]!r}; give it memory=ProcessMemory()")
        )
        return future

    @property
    def num_taken(self) -> int:
        return 0

    def close(self) -> None:
        """There is nothing to close."""


class HubMemory(RobotMemory):
    """Sessions on an engine of this process, behind a Hub.

    Its thread shares processor, GPU and interpreter with the feed; `ProcessMemory` shares less, and keeps the feed's
    pace better. The engine's model is the engine's alone: it must be another than the one the feed encodes with.

    engine: the hub's from `open` to `close`, which closes its sessions and not the engine: whoever made it closes it,
        after the feed. fps: pictures a second that are remembered of each camera.
    """

    def __init__(self, engine: Engine, *, fps: float = 1.0) -> None:
        self._hub = Hub(engine)
        self._sampler = RateSampler(fps)
        self._feeds: dict[str, OfferedFeed] = {}
        self._gaps = GapsTold()

    def open(self, camera_ids: Sequence[str]) -> None:
        self._hub.start()
        for camera_id in camera_ids:
            self._feeds[camera_id] = OfferedFeed(camera_id, self._sampler)
            self._hub.add(self._feeds[camera_id], narrate=False)

    def offer(self, picture: Picture) -> None:
        self._feeds[picture.camera_id].offer(remembered(picture, self._gaps.tell(picture)))

    def ask(self, camera_id: str, question: Question) -> Future[Answer]:
        return self._hub.ask(camera_id, question)

    @property
    def num_taken(self) -> int:
        return sum(stats.num_processed for stats in self._hub.stats().values())

    def close(self) -> None:
        self._hub.close()


class OfferedFeed(Feed):
    """Frames that somebody shows, of which the newest that is due waits. Whoever shows never waits.

    The gaps before frames that are not due, or are overtaken, are told by the next that is taken.
    """

    def __init__(self, camera_id: str, sampler: RateSampler) -> None:
        self.stream_id = camera_id
        self.stats = SourceStats()
        self._due = sampler.start()
        self._gap_s = 0.0  # since the last that was due
        self._buffer: FrameBuffer[Frame] = FrameBuffer(1, "newest_only", carry=carry_gap)
        self._callback: Callable[[], None] | None = None
        self._is_closed = False

    def offer(self, frame: Frame) -> None:
        """Takes the frame where one is due."""
        self.stats.num_frames += 1
        self._gap_s += frame.gap_s
        if not self._due.take(frame.pts_s):
            return
        due = frame if frame.gap_s == self._gap_s else replace(frame, gap_s=self._gap_s)
        self._gap_s = 0.0
        if self._buffer.put(due) and self._callback is not None:
            self._callback()

    def on_news(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def take(self) -> Frame | None:
        return self._buffer.get(timeout_s=0) if len(self._buffer) else None

    @property
    def num_waiting(self) -> int:
        return len(self._buffer)

    @property
    def num_overtaken(self) -> int:
        return self._buffer.num_dropped

    @property
    def is_ended(self) -> bool:
        return self._is_closed and not len(self._buffer)

    @property
    def problem(self) -> Exception | None:
        return None

    def close(self) -> None:
        self._is_closed = True
        self._buffer.close()


class GapsTold:
    """How long nothing could be seen of each camera since a memory was last told. For one thread.

    Pictures are told of once in a while, and some again: what counts is their sum of all gaps, not their own.
    """

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}

    def tell(self, picture: Picture) -> float:
        """Seconds since the picture that was told of before; before the first, its own. From now on they are told."""
        before_s = self._told_s.get(picture.camera_id, picture.gaps_s - picture.frame.gap_s)
        self._told_s[picture.camera_id] = picture.gaps_s
        return max(0.0, picture.gaps_s - before_s)


def remembered(picture: Picture, gap_s: float = 0.0) -> Frame:
    """The picture as a session takes it: on a time that never runs back, with its capture in Unix time.

    gap_s: how long nothing could be seen since the picture that was remembered before.
    """
    wall_s = time.time() - picture.age_s()
    return replace(picture.frame, pts_s=picture.pts_s, stream_id=picture.camera_id, wall_s=wall_s, gap_s=gap_s)
