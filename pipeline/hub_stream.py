"""What a Hub knows of one stream: its feed, its session, what waits to be asked, what is due to be told."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from ..encoders.reuse.base import Computed
from ..stream import Frame, redact
from .answer import Answer
from .feeds import Feed
from .intake import KeptTokens
from .question import NothingSeen, Question
from .session import Session
from .turns import Load

_log = logging.getLogger(__name__)

# A question to a stream that has shown nothing yet waits this long for a first frame.
FIRST_FRAME_S = 10.0


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Made by `Hub.stats`, read by people and metrics.

    num_overtaken: frames that were due and were overtaken by newer ones, because the model was slower.
    age_s: of the newest processed frame, since its capture, or its arrival where nobody told; None before the first.
    num_bytes: what the session holds. bytes_by_tier: T0 to T3, wherever they are; both as they were a second ago.
    seen_until_s: stream time of the newest frame.
    change_share: share of the picture that changed from the frame before to the newest, 0 to 1.
    recomputed_share: share of all patches so far that went through the vision tower.
    """

    stream_id: str
    state: str
    num_processed: int
    num_overtaken: int
    age_s: float | None
    num_bytes: int
    bytes_by_tier: dict[str, int] = field(default_factory=dict)
    seen_until_s: float | None = None
    change_share: float = 0.0
    recomputed_share: float = 1.0


class StreamSight(NamedTuple):
    """A stream's newest frame, in its session's time, and what was made of the newest ones. Made by a hub.

    computed: of the newest block that was encoded. kept: of the newest whose tokens were chosen.
    """

    newest: Frame | None
    computed: Computed | None
    kept: KeptTokens | None
    change_share: float


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

    def refuse_where_failed(self, call: Future[None]) -> None:
        """Ends it without an answer where it could not even be asked."""
        error = call.exception()
        if isinstance(error, Exception):
            self.refuse(error)

    def shielded_on_text(self) -> Callable[[str], None] | None:
        """Calls it as long as it does not fail: whoever reads an answer along must not stop the others."""
        if self.on_text is None:
            return None
        listening = [self.on_text]

        def relay(text: str) -> None:
            try:
                for listener in listening:
                    listener(text)
            except Exception:  # noqa: BLE001 - nor the others'
                listening.clear()
                _log.exception("whoever reads an answer along failed, and reads no more of it")

        return relay


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
    bytes_by_tier: dict[str, int] = field(default_factory=dict)
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
            self.bytes_by_tier,
            self.session.seen_until_s,
            self.session.narrator.change_share,
            self.session.intake.eyes.stats.recomputed_share,
        )

    def sight(self) -> StreamSight:
        """The newest frame, and what was made of it; from any thread."""
        intake, narrator = self.session.intake, self.session.narrator
        return StreamSight(self.session.newest, intake.eyes.computed, intake.kept, narrator.change_share)

    def count(self) -> None:
        """Counts what its session holds."""
        self.num_bytes, self.bytes_by_tier = self.session.num_bytes, self.session.history.bytes_by_tier()

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
                NothingSeen(f"nothing was seen of stream {self.feed.stream_id!r} yet, which {state}; ask it later")
            )
