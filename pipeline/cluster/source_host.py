"""SourceHost: what runs beside one source, wherever its actor is: reads it, keeps what is newest, hands it out."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ...stream import Frame, SourceError, SourceStats, redact
from ..feeds import Feed, SourceFeed
from ..stream_spec import StreamSpec

_log = logging.getLogger(__name__)

# What one call gives of a recording: a call costs Ray two milliseconds of CPU, in three processes, whatever it carries.
# Everything that one call gave is kept until all of it was taken, so large pictures come fewer at once.
_AT_ONCE = 4
_AT_ONCE_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Place:
    """How far a reader is: the index of the last frame it has, of the process that it came from."""

    incarnation: str
    index: int


class Taken(NamedTuple):
    """Made by a SourceHost, read by RemoteFeed: frames in order of time, or that there is none now, or no more.

    frames: empty where none came in time, and at the end; one of a live source.
    is_ended: no more will come; problem says why, where the source did not just come to its end.
    """

    incarnation: str
    frames: tuple[Frame, ...]
    is_live: bool
    is_ended: bool
    problem: str | None
    state: str
    num_overtaken: int
    stats: SourceStats


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Made by a SourceHost, read by supervisors and tests: how it is doing.

    num_asking, most_asking: calls for a frame that are open now, and that were at the most.
    """

    incarnation: str
    pid: int
    state: str
    problem: str | None
    num_overtaken: int
    num_handed_out: int
    num_asking: int
    most_asking: int


class SourceHost:
    """Reads one source. Of a live one the newest frame that is due waits here, and only that; a recording waits.

    Frames of a recording are kept until whoever has them asks for the next: an answer that never arrived is given
    again.
    Any thread may call anything. A source that cannot be opened has ended, and says why; this does not raise, so that
    whoever looks after the process can tell a mistake in the address from a process that died.
    """

    def __init__(self, spec: StreamSpec, fps: float) -> None:
        self._incarnation = uuid.uuid4().hex[:12]
        self._is_live = spec.is_live
        self._news = threading.Condition()
        self._num_news = 0
        self._taking = threading.Lock()
        self._held: tuple[Frame, ...] = ()
        self._num_asking = self._most_asking = self._num_handed_out = 0
        try:
            # A camera that is away now must not keep this process from starting: it is looked for like a lost one.
            options = {"must_answer": False} if spec.is_live and not spec.as_live else {}
            self._feed: Feed = SourceFeed(spec.open(**options), fps=fps, stream_id=spec.stream_id, ahead=_AT_ONCE)
        except (OSError, ValueError, ImportError) as error:
            _log.warning("stream %r cannot be opened: %s", spec.stream_id, redact(str(error), spec.uri))
            self._feed = _Unopened(spec.stream_id, SourceError(redact(str(error), spec.uri)))
        self._feed.on_news(self._wake)

    def next_frames(self, after: Place | None, wait_s: float) -> Taken:
        """The next frames after that one, those that wait, and of a live source the newest alone; waits up to `wait_s`
        for one.

        after: None: from wherever the source is.
        """
        with self._news:
            self._num_asking += 1
            self._most_asking = max(self._most_asking, self._num_asking)
        try:
            with self._taking:
                frames = self._await(after, time.monotonic() + wait_s)
        finally:
            with self._news:
                self._num_asking -= 1
        feed = self._feed
        self._num_handed_out += len(frames)
        # Asked after frames were looked for: what ended in between is told at the next call.
        is_ended = not frames and feed.is_ended
        return Taken(
            self._incarnation,
            frames,
            self._is_live,
            is_ended,
            self._problem if is_ended else None,
            feed.state,
            feed.num_overtaken,
            feed.stats,
        )

    def report(self) -> SourceReport:
        """How it is doing."""
        feed = self._feed
        return SourceReport(
            self._incarnation,
            os.getpid(),
            feed.state,
            self._problem,
            feed.num_overtaken,
            self._num_handed_out,
            self._num_asking,
            self._most_asking,
        )

    def close(self) -> None:
        """Lets the source go."""
        self._feed.close()
        self._wake()

    @property
    def _problem(self) -> str | None:
        problem = self._feed.problem
        return None if problem is None else redact(str(problem)) or type(problem).__name__

    def _wake(self) -> None:
        with self._news:
            self._num_news += 1
            self._news.notify_all()

    def _await(self, after: Place | None, until_s: float) -> tuple[Frame, ...]:
        held = tuple(frame for frame in self._held if after is None or frame.index > after.index)
        if held:
            return held
        first = self._await_one(after, until_s)
        if first is None or self._is_live:
            self._held = ()
            return () if first is None else (first,)
        frames = [first]
        at_most = min(_AT_ONCE, _AT_ONCE_BYTES // first.rgb_HW3.nbytes)
        while len(frames) < at_most and (frame := self._feed.take()) is not None:
            frames.append(frame)
        self._held = tuple(frames)
        return self._held

    def _await_one(self, after: Place | None, until_s: float) -> Frame | None:
        is_mine = after is not None and after.incarnation == self._incarnation
        while True:
            with self._news:
                num_news = self._num_news
            frame = self._feed.take()
            # A recording that is read anew, as its process died, has given these before.
            was_given = frame is not None and after is not None and not is_mine and frame.index <= after.index
            if frame is not None and not (was_given and not self._is_live):
                return frame
            if frame is None:
                if self._feed.is_ended:
                    return None
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return None
                with self._news:
                    if self._num_news == num_news:
                        self._news.wait(left_s)
            elif time.monotonic() > until_s:
                return None


class _Unopened(Feed):
    """A source that could not be opened."""

    def __init__(self, stream_id: str, why: Exception) -> None:
        self.stream_id = stream_id
        self.stats = SourceStats()
        self._why = why

    def on_news(self, callback: Callable[[], None]) -> None:
        callback()

    def take(self) -> None:
        return None

    @property
    def num_waiting(self) -> int:
        return 0

    @property
    def num_overtaken(self) -> int:
        return 0

    @property
    def is_ended(self) -> bool:
        return True

    @property
    def problem(self) -> Exception:
        return self._why

    def close(self) -> None:
        """There is nothing to let go."""
