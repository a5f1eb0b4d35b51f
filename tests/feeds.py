"""A feed whose frames the test hands over itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from millpond.pipeline.feeds import Feed
from millpond.stream import Frame, SourceStats


class HandFeed(Feed):
    """Gives what `give` was given: everything, or as a camera does, the newest."""

    def __init__(
        self, stream_id: str, frames: Iterable[Frame] = (), *, is_live: bool = False, ends: bool = False
    ) -> None:
        self.stream_id = stream_id
        self.stats = SourceStats()
        self._frames: deque[Frame] = deque(frames)
        self._is_live, self._is_ended = is_live, ends
        self._problem: Exception | None = None
        self._overtaken = 0
        self._callback: Callable[[], None] = lambda: None
        self.is_closed = False

    def give(self, *frames: Frame) -> None:
        for frame in frames:
            if self._is_live and self._frames:
                self._frames.clear()
                self._overtaken += 1
            self._frames.append(frame)
        self._callback()

    def end(self, problem: Exception | None = None) -> None:
        self._problem, self._is_ended = problem, True
        self._callback()

    def on_news(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        callback()

    def take(self) -> Frame | None:
        return self._frames.popleft() if self._frames else None

    @property
    def num_waiting(self) -> int:
        return len(self._frames)

    @property
    def num_overtaken(self) -> int:
        return self._overtaken

    @property
    def is_ended(self) -> bool:
        return self._is_ended and not self._frames

    @property
    def problem(self) -> Exception | None:
        return self._problem

    def close(self) -> None:
        self.is_closed = True
