"""Hub: one engine and many streams. One thread owns the engine; everybody else talks to it from wherever they are."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..memory.event_log import Line
from .answer import Answer
from .answering import Answered, Answering, Asking
from .engine import Engine
from .feeds import Feed
from .hub_events import Ended, HubEvent, HubStopped, Narrated
from .hub_stream import HubStream, StreamSight, StreamStats, Waiting
from .question import Question
from .session import Session
from .turns import next_turn

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Turns that fail one after another before the hub gives up: one failure may be a frame, or memory that was short.
_MAX_FAILURES = 8
# Seconds between counts of the bytes that sessions hold.
_COUNT_EVERY_S = 1.0
# An idle hub looks around this often, for narrations that fall due and feeds that end without a word.
_IDLE_S = 0.25


class Hub:
    """Frames of many feeds into the sessions of one engine, read in packed passes; questions and narrations of several
    streams decoded together, token by token, while others join.

        feeds  --take-->  [turn: what next?] --push, one packed read-->  sessions
        ask()  --------->                    --begin, one step of all--> answers

    What comes first is the rule of `next_turn`. Every method may be called from any thread; the engine is the hub's
    from `start` to `close`.

    max_frames: streams whose frames are read in one pass. max_answers: answers that are decoded together.
    on_event: called from the hub's thread, so it must be short.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        on_event: Callable[[HubEvent], None] | None = None,
        max_frames: int = 32,
        max_answers: int = 16,
    ) -> None:
        if max_frames < 1 or max_answers < 1:
            raise ValueError(f"a hub needs room for one frame and one answer; got {max_frames} and {max_answers}")
        self._engine = engine
        self._on_event = on_event
        self._max_frames, self._max_answers = max_frames, max_answers
        self._answering = Answering(engine)
        self._streams: dict[str, HubStream] = {}  # written by the hub's thread alone
        self._calls: deque[Callable[[], None]] = deque()
        self._news = threading.Event()
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_over = False  # the thread does no more calls
        self._failed: Exception | None = None
        self._num_failures = 0
        self._num_since_frames = 0
        self._counted_at_s = 0.0
        self._turned_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="millpond hub", daemon=True)

    # What anybody may call.

    def start(self) -> Hub:
        self._thread.start()
        return self

    def add(
        self,
        feed: Feed,
        *,
        question: str | None = None,
        narrate: bool = True,
        at: str | Path | None = None,
        on_line: Callable[[Line], None] | None = None,
    ) -> Future[None]:
        """Opens a session for the feed's stream and begins to take its frames.

        question: what it is watched for. at: where the session outlives the process.
        on_line: called with every line of its log from the hub's thread, so it must be short.
        """
        return self._call(lambda: self._add(feed, question, narrate, at, on_line))

    def remove(self, stream_id: str) -> Future[None]:
        """Ends a stream: its feed is closed, its session flushed and closed, its questions fail."""
        return self._call(lambda: self._remove(stream_id))

    def ask(
        self, stream_id: str, question: Question, *, on_text: Callable[[str], None] | None = None
    ) -> Future[Answer]:
        """Asks a stream; answered from what was taken of it by then. What is wrong with it is the future's exception.

        on_text: called from the hub's thread with the text so far.
        """
        waiting = Waiting(question, Future(), on_text)
        self._call(lambda: self._ask(stream_id, waiting)).add_done_callback(waiting.refuse_where_failed)
        return waiting.future

    def give_up(self, asked: Future[Answer], reason: Exception) -> None:
        """Stops answering what `ask` gave this future for: whoever asked has gone."""
        if not asked.cancel():
            self._call(lambda: self._give_up(asked, reason))

    def look(self, stream_id: str, what: Callable[[Session], T]) -> Future[T]:
        """What a function makes of a stream's session, between two turns; it must be short, and change nothing."""
        return self._call(lambda: what(self._known(stream_id).session))

    def stats(self) -> dict[str, StreamStats]:
        """How all streams are doing."""
        return {stream_id: stream.stats() for stream_id, stream in self._streams.copy().items()}

    def sight(self, stream_id: str) -> StreamSight | None:
        """A stream's newest frame and what was made of it; None where there is no such stream."""
        stream = self._streams.get(stream_id)
        return None if stream is None else stream.sight()

    @property
    def turn_age_s(self) -> float | None:
        """Seconds since its thread last came round; None where that does not run."""
        return time.monotonic() - self._turned_s if self._thread.is_alive() else None

    def wait_until_ended(self, timeout_s: float | None = None) -> bool:
        """Waits until all feeds ended, all they gave is read, and all that was asked is answered; whether that came.

        Raises what the hub gave up for, where it did.
        """
        with self._changed:
            is_over = self._changed.wait_for(lambda: self._failed is not None or self._is_all_over(), timeout_s)
            if self._failed is not None:
                raise HubStopped(f"the hub gave up: {self._failed}") from self._failed
            return is_over

    def close(self) -> None:
        """Ends all streams and the thread. Questions that are not answered yet fail with HubStopped; sessions are
        flushed. May be called again."""
        self._is_closing = True
        self._news.set()
        if self._thread.ident is None:
            self._end(HubStopped("the hub was closed before it was started"))
        elif self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Hub:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # The hub's thread, from here on.

    def _run(self) -> None:
        reason: Exception = HubStopped("the hub was closed before this was answered; ask again when it runs")
        while not self._is_closing:
            self._turned_s = time.monotonic()
            try:
                is_idle = not self._turn()
                self._num_failures = 0
            except Exception as error:  # noqa: BLE001 - the thread outlives a frame that cannot be read
                _log.exception("a turn of the hub failed")
                self._finish(self._answering.stop(error))
                self._num_failures += 1
                if self._max_frames > 1:  # what does not fit at once may fit in parts
                    self._max_frames //= 2
                    _log.warning("from now on the frames of at most %d streams are read at once", self._max_frames)
                if self._num_failures >= _MAX_FAILURES:
                    reason = HubStopped(f"the hub gave up after {_MAX_FAILURES} failures in a row: {error}")
                    self._failed = error
                    break
                continue
            with self._changed:
                self._changed.notify_all()
            if is_idle:
                self._news.wait(_IDLE_S)
                self._news.clear()
        self._end(reason)

    def _turn(self) -> bool:
        """One turn; whether there was anything to do."""
        num_calls = len(self._calls)
        for _ in range(num_calls):
            self._calls[0]()  # it counts as waiting until it is done
            self._calls.popleft()
        did_end = [self._look_after(stream_id, stream) for stream_id, stream in self._streams.items()]
        turn = next_turn(
            [stream.load(self._answering.is_busy(stream.session)) for stream in self._streams.values()],
            max_frames=self._max_frames,
            max_answers=self._max_answers,
            num_answering=len(self._answering),
            num_since_frames=self._num_since_frames,
        )
        self._begin(turn.questions, turn.narrations)
        if turn.frames:
            self._take(turn.frames)
        self._num_since_frames = 0 if turn.frames else self._num_since_frames + 1
        num_answering = len(self._answering)
        self._finish(self._answering.step())
        self._count()
        return bool(num_calls or any(did_end) or any(turn) or num_answering)

    def _look_after(self, stream_id: str, stream: HubStream) -> bool:
        """Sees whether a narration is due, and whether the stream has ended; whether it did now."""
        stream.refuse_in_vain()
        if stream.is_over or self._answering.is_busy(stream.session):
            return False
        is_ended = stream.feed.is_ended  # asked once: it may end at any moment, and its end is to be told of
        stream.find_narration(is_ended)
        if not is_ended or stream.narration is not None:
            return False
        stream.is_over = True
        self._tell(Ended(stream_id, stream.problem))
        return True

    def _begin(self, questions: tuple[str, ...], narrations: tuple[str, ...]) -> None:
        askings: list[Asking] = []
        for stream_id in questions:
            stream = self._streams[stream_id]
            waiting = stream.questions.popleft()
            if not waiting.future.set_running_or_notify_cancel():
                continue  # whoever asked has gone
            stream.num_since_frame += 1
            askings.append(
                Asking(waiting, stream.session, waiting.question, waiting.shielded_on_text(), waiting.asked_s)
            )
        for stream_id in narrations:
            stream = self._streams[stream_id]
            assert stream.narration is not None
            stream.num_since_frame += 1
            askings.append(Asking(stream, stream.session, stream.narration))
        if askings:
            try:
                self._read([asking.session for asking in askings])
                self._finish(self._answering.begin(askings))
            except Exception as error:
                self._finish([Answered(asking.key, None, error) for asking in askings])
                raise

    def _take(self, stream_ids: tuple[str, ...]) -> None:
        """The next frame of each of these, all read in one pass."""
        taken: list[Session] = []
        for stream_id in stream_ids:
            stream = self._streams[stream_id]
            try:
                if stream.push():
                    taken.append(stream.session)
            except ValueError as error:
                _log.warning("stream %r: %s", stream_id, error)
        self._read(taken)
        for session in taken:
            session.flush_if_due()

    def _read(self, sessions: list[Session]) -> None:
        try:
            self._engine.read_pending(sessions)
        except ValueError as error:  # what made no sense is left out, and the rest was read
            _log.warning("%s", error)

    def _finish(self, done: list[Answered]) -> None:
        for key, answer, error in done:
            if isinstance(key, Waiting):
                if key.future.done():
                    continue  # a failure is told once
                if answer is not None:
                    key.future.set_result(answer)
                else:
                    key.future.set_exception(error or HubStopped("the question was given up"))
                continue
            assert isinstance(key, HubStream)
            key.narration = None
            if answer is None:
                _log.warning("stream %r is not narrated: %s", key.feed.stream_id, error)
                key.session.skip_narration()
                continue
            narration = key.session.narrated(answer)
            if narration is not None:
                self._tell(Narrated(key.feed.stream_id, narration))

    def _count(self) -> None:
        if time.monotonic() - self._counted_at_s >= _COUNT_EVERY_S:
            self._counted_at_s = time.monotonic()
            for stream in self._streams.values():
                stream.count()

    def _tell(self, event: HubEvent) -> None:
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001 - it is not the streams' fault
                _log.exception("whoever listens to the hub failed")

    def _is_all_over(self) -> bool:
        streams = list(self._streams.values())
        return not self._calls and all(
            stream.is_over and not stream.questions and not self._answering.is_busy(stream.session)
            for stream in streams
        )

    def _end(self, reason: Exception) -> None:
        self._is_closing = True
        self._finish(self._answering.stop(reason))
        for stream_id in tuple(self._streams):
            with suppress(Exception):
                self._remove(stream_id, reason)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        while self._calls:
            self._calls.popleft()()

    # Calls of other threads, done by the hub's.

    def _call(self, what: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self._is_closing:
                    raise HubStopped("the hub is closed; start another")
                future.set_result(what())
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

        with self._changed:
            if not self._is_over:
                self._calls.append(run)
                self._news.set()
                return future
        run()
        return future

    def _add(
        self,
        feed: Feed,
        question: str | None,
        narrate: bool,
        at: str | Path | None,
        on_line: Callable[[Line], None] | None,
    ) -> None:
        try:
            session = self._engine.session(feed.stream_id, question=question, at=at)
        except BaseException:
            feed.close()
            raise
        if on_line is not None:
            session.history.on_line = on_line
        stream = self._streams[feed.stream_id] = HubStream(feed, session, narrate)
        stream.count()
        feed.on_news(self._news.set)

    def _remove(self, stream_id: str, reason: Exception | None = None) -> None:
        stream = self._known(stream_id)
        reason = reason or HubStopped(f"stream {stream_id!r} was removed before this was answered")
        if self._answering.is_busy(stream.session):
            self._finish(self._answering.stop(reason, only=stream.session))
        while stream.questions:
            stream.questions.popleft().refuse(reason)
        del self._streams[stream_id]
        stream.feed.close()
        stream.session.close()

    def _ask(self, stream_id: str, waiting: Waiting) -> None:
        self._known(stream_id).questions.append(waiting)

    def _give_up(self, asked: Future[Answer], reason: Exception) -> None:
        going = [key for key in self._answering.keys if isinstance(key, Waiting) and key.future is asked]
        for key in going:
            self._finish(self._answering.give_up(key, reason))

    def _known(self, stream_id: str) -> HubStream:
        if stream_id not in self._streams:
            there_are = ", ".join(self._streams) or "none"
            raise ValueError(f"there is no stream {stream_id!r}; there are: {there_are}")
        return self._streams[stream_id]
