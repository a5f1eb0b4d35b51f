"""Watched: one stream as the desk knows it: its feed, its newest lines, its newest picture."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...memory.event_log import EventLog, Line
from ...stream import Frame
from ...stream.redact import redact, redact_uri
from ...stream.way import Way
from ..feeds import Feed
from ..hub_stream import StreamStats
from ..shown import Picture, shot_of
from .late_feed import LateFeed
from .looking import row_of
from .views import EventRow, StateName, StreamEntry, StreamState

if TYPE_CHECKING:
    from ..session import Session

# Lines at hand, so that those who follow a stream ask nobody for what just came.
_MAX_LINES = 512
_NOTHING_YET = StreamStats("", "connecting", 0, 0, None, 0)


@dataclass(eq=False)
class Watched:
    """One stream of the desk. What is written here by several threads is written under the desk's lock.

    way: how its source is connected to; None: straight.
    is_hidden: it was made for a question about a video, and is not on the list of streams.
    has_begun: the hub has it. is_leaving: it is being removed. problem: why it could not begin.
    log: of its session, from when it began. budgets: of its tiers.
    """

    entry: StreamEntry
    started: str
    is_hidden: bool = False
    way: Way | None = None
    feed: Feed | None = None
    has_begun: bool = False
    is_leaving: bool = False
    problem: str | None = None
    log: EventLog | None = None
    budgets: dict[str, int] = field(default_factory=dict)
    num_questions: int = 0
    lines: deque[Line] = field(default_factory=deque)
    before: int = -1  # those with larger numbers are all in `lines`
    _shot: tuple[Frame, Picture] | None = None
    _shooting: threading.Lock = field(default_factory=threading.Lock)

    def take_over(self, session: Session) -> None:
        """Takes the newest lines of its log; in the hub's thread, before another comes."""
        lines = sorted(session.history.log.lines(num_lines=_MAX_LINES), key=lambda line: line.number)
        if len(lines) == _MAX_LINES:
            self.before = lines[0].number - 1
        self.lines = deque(lines)
        self.log, self.budgets, self.has_begun = session.history.log, session.history.budget_by_tier(), True

    def put(self, line: Line) -> None:
        """Another line came."""
        self.lines.append(line)
        while len(self.lines) > _MAX_LINES:
            self.before = self.lines.popleft().number

    def rows_after(self, number: int, most: int, newest: Frame | None) -> list[EventRow] | None:
        """Lines with larger numbers, the first `most`; None where some of them are not at hand."""
        if number < self.before:
            return None
        return [row_of(line, newest) for line in self.lines if line.number > number][:most]

    @property
    def is_settled(self) -> bool:
        """Whether it has begun, or it is known that it cannot."""
        return self.has_begun or self.problem is not None

    @property
    def last_number(self) -> int:
        """Of the newest line; -1 before the first."""
        return self.lines[-1].number if self.lines else self.before

    def shot(self, frame: Frame) -> Picture:
        """The frame as JPEG, coded once."""
        with self._shooting:
            if self._shot is None or self._shot[0] is not frame:
                self._shot = frame, shot_of(frame)
            return self._shot[1]

    def state(self, stats: StreamStats | None) -> StreamState:
        """How it is doing. stats: of the hub; None where that does not have it."""
        shown, feed = stats or _NOTHING_YET, self.feed
        source = None if feed is None else feed.stats
        problem = self._trouble()
        return StreamState(
            id=self.entry.id,
            source=redact_uri(self.entry.source),
            state=self._name(shown, problem),
            problem=None if problem is None else redact(problem, self.entry.source),
            lag_s=shown.age_s,
            seen_until_s=shown.seen_until_s,
            num_frames=shown.num_processed,
            num_dropped=shown.num_overtaken + (0 if source is None else source.num_dropped),
            num_reconnects=0 if source is None else source.num_reconnects,
            num_questions=self.num_questions,
            change_share=shown.change_share,
            recomputed_share=shown.recomputed_share,
            held_bytes=shown.num_bytes,
            bytes_by_tier=dict(shown.bytes_by_tier),
            started=self.started,
            was_live=shown.num_processed > 0,
            budget_by_tier=dict(self.budgets),
        )

    def _trouble(self) -> str | None:
        if self.problem is not None:
            return self.problem
        if isinstance(self.feed, LateFeed):
            return self.feed.trouble
        return None if self.feed is None or self.feed.problem is None else str(self.feed.problem)

    def _name(self, stats: StreamStats, problem: str | None) -> StateName:
        if self.problem is not None:
            return "failed"
        if not self.has_begun or self.feed is None:
            return "connecting"
        if self.feed.is_ended:
            return "ended" if self.feed.problem is None else "failed"
        if self.feed.state == "lost" or (self.feed.state == "connecting" and problem is not None):
            return "retrying"
        return "connecting" if self.feed.state == "connecting" else "live"
