"""RemoteFeed: the frames of a source that another process reads, pulled a few at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...stream import Frame, SourceStats
from ...stream.frame import carry_gap
from ..feeds import Feed
from .source_host import Place, Taken

_log = logging.getLogger(__name__)

_LOOK_S = 0.5  # between looks whether the feed was closed, while a frame is awaited
_RETRY_S = (0.1, 2.0)  # the first and the longest wait for a source whose process is gone


class RemoteFeed(Feed):
    """Frames of a SourceHost in another process. Its thread has one call for frames open at most, so nothing queues:
    what the model cannot take is overtaken at the source, and counted there.

        source's process: [newest] <--next_frames, one open--  thread -> [waiting] -> take

    Of a recording a call brings a few, and the next goes out when all are taken. While a live frame waits to be taken,
    a newer one is asked for by and by and takes its place. A process that is gone
    is looked for until there is another of its name; time then goes on by the clock, and the first frame says in
    `gap_s` how long nothing was seen. A recording goes on with the frame after the last one that came.

    find: gives the handle of the source's actor, or raises LookupError.
    wait_s: how long the source may take to answer that there is no frame yet.
    refresh_s: how long a live frame waits before a newer one is asked for.
    """

    def __init__(self, stream_id: str, find: Callable[[], Any], *, wait_s: float = 2.0, refresh_s: float = 0.2) -> None:
        self.stream_id = stream_id
        self._find = find
        self._wait_s, self._refresh_s = wait_s, refresh_s
        self._callback: Callable[[], None] = _nothing
        self._closing = threading.Event()
        self._lock = threading.Condition()
        self._waiting: deque[Frame] = deque()
        self._is_done = False
        self._problem: Exception | None = None
        self._told: Taken | None = None  # the newest answer
        self._is_lost = False
        self._num_replaced = 0
        self._num_overtaken_before = 0  # by processes that are gone
        # Where the stream's own clock stands: a source that starts anew begins at 0 again.
        self._place: Place | None = None
        self._offset_s, self._index_offset = 0.0, 0
        self._last: Frame | None = None
        self._came_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"millpond remote feed {stream_id}", daemon=True)

    @property
    def stats(self) -> SourceStats:  # type: ignore[override]
        """Counts of the source's process that runs now."""
        return SourceStats() if self._told is None else self._told.stats

    def on_news(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._thread.start()

    def take(self) -> Frame | None:
        with self._lock:
            if not self._waiting:
                return None
            frame = self._waiting.popleft()
            if not self._waiting:
                self._lock.notify_all()
            return frame

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_overtaken(self) -> int:
        told = 0 if self._told is None else self._told.num_overtaken
        return self._num_overtaken_before + told + self._num_replaced

    @property
    def is_ended(self) -> bool:
        return self._is_done and not self._waiting

    @property
    def problem(self) -> Exception | None:
        return self._problem

    @property
    def state(self) -> str:
        if self.is_ended or self._told is None:
            return "ended" if self.is_ended else "connecting"
        return "lost" if self._is_lost else self._told.state

    def close(self) -> None:
        """Ends it, and waits for nothing: its thread sees it within `_LOOK_S`."""
        self._closing.set()
        with self._lock:
            self._lock.notify_all()

    # The thread, from here on.

    def _run(self) -> None:
        import ray

        source: Any = None
        wait_s = _RETRY_S[0]
        try:
            while self._is_wanted():
                try:
                    source = self._find() if source is None else source
                    taken = self._ask(source)
                except (LookupError, ray.exceptions.RayError) as error:
                    source = None
                    self._lost(error)
                    self._closing.wait(wait_s)
                    wait_s = min(2 * wait_s, _RETRY_S[1])
                    continue
                if taken is None:
                    break
                wait_s = _RETRY_S[0]
                if self._accept(taken):
                    break
        except Exception as error:  # noqa: BLE001 - whoever takes has to learn of whatever ends this thread
            _log.exception("the feed of stream %r failed", self.stream_id)
            self._problem = error
        finally:
            self._is_done = True
            self._callback()

    def _is_wanted(self) -> bool:
        """Waits until more frames are wanted; False once the feed is closed."""
        with self._lock:
            is_live = self._told is not None and self._told.is_live
            self._lock.wait_for(
                lambda: self._closing.is_set() or not self._waiting, self._refresh_s if is_live else None
            )
            return not self._closing.is_set()

    def _ask(self, source: Any) -> Taken | None:
        """One call, awaited to its end, however long that takes: a source that hangs is for others to kill. None once
        the feed is closed."""
        import ray

        asked = source.next_frames.remote(self._place, self._wait_s)
        while not self._closing.is_set():
            try:
                taken: Taken = ray.get(asked, timeout=_LOOK_S)
            except ray.exceptions.GetTimeoutError:
                continue
            return taken
        return None

    def _accept(self, taken: Taken) -> bool:
        """Takes note of an answer; whether it was the last."""
        told = self._told
        is_new = told is not None and told.incarnation != taken.incarnation
        if is_new and told is not None:
            self._num_overtaken_before += told.num_overtaken
        if self._is_lost:
            _log.info("stream %r: there is a process again that reads its source", self.stream_id)
            self._is_lost = False
        self._told = taken
        if taken.is_ended:
            self._problem = None if taken.problem is None else ConnectionError(taken.problem)
            return True
        if not taken.frames:
            return False
        frames = [self._continued(taken, frame) for frame in taken.frames]
        self._place = Place(taken.incarnation, taken.frames[-1].index)
        self._last, self._came_at_s = frames[-1], time.monotonic()
        with self._lock:
            if self._waiting:  # one of a live source, that a newer one now takes the place of
                self._num_replaced += len(self._waiting)
                frames[0] = carry_gap(self._waiting[-1], frames[0])
            self._waiting = deque(frames)
        self._callback()
        return False

    def _continued(self, taken: Taken, frame: Frame) -> Frame:
        """The frame, on the clock that this stream has had from its beginning."""
        last, place = self._last, self._place
        gap_s = frame.gap_s
        if taken.is_live and last is not None and place is not None and place.incarnation != taken.incarnation:
            passed_s = time.monotonic() - self._came_at_s
            self._offset_s = last.pts_s + passed_s - frame.pts_s
            self._index_offset = last.index + 1 - frame.index
            gap_s += passed_s
        if not (self._offset_s or self._index_offset):
            return frame
        return replace(frame, pts_s=frame.pts_s + self._offset_s, index=frame.index + self._index_offset, gap_s=gap_s)

    def _lost(self, error: Exception) -> None:
        if not self._is_lost and self._told is not None:
            _log.info("stream %r: the process that reads its source is gone: %s", self.stream_id, type(error).__name__)
            self._is_lost = True


def _nothing() -> None:
    """What a feed calls that nobody listens to yet."""
