"""What a Hub knows of one stream: its feed, its session, what waits to be asked, what is due to be told."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..stream import redact
from .answer import Answer
from .feeds import Feed
from .question import Question
from .session import Session
from .turns import Load

# A question to a stream that has shown nothing yet waits this long for a first frame.
FIRST_FRAME_S = 10.0


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Made by `Hub.stats`, read by people and metrics.

    num_overtaken: frames that were due and were overtaken by newer ones, because the model was slower.
    age_s: of the newest processed frame, since its capture, or its arrival where nobody told; None before the first.
    num_bytes: what the session holds.
    """

    stream_id: str
    state: str
    num_processed: int
    num_overtaken: int
    age_s: float | None
    num_bytes: int


@dataclass(eq=False, slots=True)
class Waiting:
    """A question that was asked and not begun yet."""

    question: Question
    future: Future[Answer]
    on_text: Callable[[str], None] | None
    asked_s: float = field(default_factory=time.perf_counter)

    def refuse(self, error: Exception) -> None:
        """Ends it without an answer."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class HubStream:
    """One stream, as the hub's thread knows it. Not thread-safe, but for `stats`.

    narration: the question of a narration that is due.
    num_since_frame: answers and narrations begun since the last frame.
    is_over: its feed ended, and what was to be said of that was said.
    """

    feed: Feed
    session: Session
    narrates: bool
    questions: deque[Waiting] = field(default_factory=deque)
    narration: Question | None = None
    num_since_frame: int = 0
    num_processed: int = 0
    num_bytes: int = 0
    is_over: bool = False
    _due_since_s: float = 0.0
    _newest_wall_s: float | None = None

    @property
    def problem(self) -> str | None:
        """Why the feed ended, in a sentence."""
        return None if self.feed.problem is None else redact(str(self.feed.problem))

    def load(self, is_busy: bool) -> Load:
        """What there is to do."""
        waited_s = 0.0
        if self.questions:
            waited_s = time.perf_counter() - self.questions[0].asked_s
        elif self.narration is not None:
            waited_s = time.perf_counter() - self._due_since_s
        return Load(
            self.feed.stream_id,
            self.feed.num_waiting,
            age_s=math.inf if self._newest_wall_s is None else time.time() - self._newest_wall_s,
            num_questions=0 if self.session.seen_until_s is None else len(self.questions),
            wants_narration=self.narration is not None,
            is_busy=is_busy,
            waited_s=waited_s,
            num_since_frame=self.num_since_frame,
        )

    def stats(self) -> StreamStats:
        """How it is doing; from any thread."""
        wall_s = self._newest_wall_s
        return StreamStats(
            self.feed.stream_id,
            self.feed.state,
            self.num_processed,
            self.feed.num_overtaken,
            None if wall_s is None else max(0.0, time.time() - wall_s),
            self.num_bytes,
        )

    def push(self) -> bool:
        """The next frame goes to the session, to be read with those of others; whether there was one."""
        frame = self.feed.take()
        if frame is None:
            return False
        self.num_since_frame = 0
        self.num_processed += 1
        self._newest_wall_s = time.time() if frame.wall_s is None else frame.wall_s
        self.session.push(frame, reads=False)
        return True

    def find_narration(self, is_ended: bool) -> None:
        """Sees whether a narration is due; at the end, one is that tells of the rest."""
        if self.narrates and self.narration is None and self.session.seen_until_s is not None:
            self.narration = self.session.narration_question(force=is_ended)
            self._due_since_s = time.perf_counter()

    def refuse_in_vain(self) -> None:
        """Questions to a stream that has shown nothing are told so, when they have waited long enough."""
        if self.session.seen_until_s is not None:
            return
        while self.questions:
            is_ended = self.feed.is_ended
            if not is_ended and time.perf_counter() - self.questions[0].asked_s < FIRST_FRAME_S:
                return
            state = f"ended without a frame ({self.problem})" if is_ended else f"is {self.feed.state}"
            self.questions.popleft().refuse(
                ValueError(f"nothing was seen of stream {self.feed.stream_id!r} yet, which {state}; ask it later")
            )
