"""Desks that alerts are tried on: a real hub, one frame at a time, and one whose answers a test writes itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from millpond.pipeline import Answer, Hub, Question, Timing
from millpond.pipeline.alerts.desk import LogRow
from millpond.stream import Frame, Span

from .alert_parts import until
from .feeds import HandFeed


@dataclass(frozen=True)
class Now:
    seen_until_s: float | None
    num_frames: int
    change_share: float


@dataclass(frozen=True)
class Row:
    kind: str
    wall: str | None = None


class LookedAtFeed(HandFeed):
    """Knows what was taken of it, and how much of the picture changed."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id)
        self.now = Now(None, 0, 0.0)
        self._last: Frame | None = None

    def take(self) -> Frame | None:
        frame = super().take()
        if frame is not None:
            share = 1.0
            if self._last is not None:
                apart = np.abs(frame.rgb_HW3.astype(np.int16) - self._last.rgb_HW3).max(axis=2)
                share = float((apart > 24).mean())
            self._last, self.now = frame, Now(frame.pts_s, self.now.num_frames + 1, share)
        return frame


@dataclass(eq=False)
class HubDesk:
    """A hub, seen as alerts see the server. `show` gives it a frame, and waits until nobody has anything to ask."""

    hub: Hub
    feeds: dict[str, LookedAtFeed]
    asked: list[tuple[str, Question, Future[Answer]]] = field(default_factory=list)
    num_looks: int = 0

    def ask(self, stream_id: str, question: Question) -> Future[Answer]:
        future = self.hub.ask(stream_id, question)
        self.asked.append((stream_id, question, future))
        return future

    def state(self, stream_id: str) -> Now:
        self.num_looks += 1
        return self.feeds[stream_id].now

    def on_event(self, callback: Callable[[str, LogRow], None]) -> None:
        """A hub that does not narrate has none."""

    def show(self, stream_id: str, frame: Frame, num_rules: int) -> None:
        feed = self.feeds[stream_id]
        feed.give(frame)
        until(lambda: feed.now.seen_until_s == frame.pts_s, "the frame is taken")
        until(lambda: self._is_settled(num_rules), "all that was asked is answered")

    def _is_settled(self, num_rules: int) -> bool:
        num_asked, seen = len(self.asked), self.num_looks
        if not all(future.done() for *_, future in self.asked):
            return False
        # Everybody looked again, and nobody asked.
        until(lambda: self.num_looks >= seen + 3 * num_rules, "everybody looked again")
        return len(self.asked) == num_asked


def an_answer(text: str, at_s: float = 0.0) -> Answer:
    return Answer("?", text, at_s, at_s, (Span(at_s, at_s),), Timing(0.0, 0.0), ())


class WrittenDesk:
    """One stream, "hall". Answers as `answers` says, one reply a question: words, an error, or None for an answer that
    never comes."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[Question] = []
        self.futures: list[Future[Answer]] = []
        self.now: Now | Exception = Now(None, 0, 0.0)
        self.callback: Callable[[str, LogRow], None] = lambda *_: None
        self.refuses: Exception | None = None
        self.looked = threading.Event()

    def see(self, at_s: float, change_share: float = 1.0) -> None:
        num_frames = self.now.num_frames if isinstance(self.now, Now) else 0
        self.now = Now(at_s, num_frames + 1, change_share)
        self.wait()

    def wait(self) -> None:
        """Until it was looked at twice from now on."""
        for _ in range(3):
            self.looked.clear()
            assert self.looked.wait(60)

    def ask(self, stream_id: str, question: Question) -> Future[Answer]:
        self.asked.append(question)
        if self.refuses is not None:
            raise self.refuses
        future: Future[Answer] = Future()
        self.futures.append(future)
        reply = self.answers.pop(0) if self.answers else None
        if isinstance(reply, str):
            assert isinstance(self.now, Now) and self.now.seen_until_s is not None
            future.set_result(an_answer(reply, self.now.seen_until_s))
        elif reply is not None:
            future.set_exception(reply)
        return future

    def state(self, stream_id: str) -> Now:
        self.looked.set()
        if stream_id != "hall":
            raise KeyError(f"there is no stream {stream_id!r}")
        if isinstance(self.now, Exception):
            raise self.now
        return self.now

    def on_event(self, callback: Callable[[str, LogRow], None]) -> None:
        self.callback = callback
