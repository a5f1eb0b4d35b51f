"""Streams: the desk behind all routes. It owns the engine, the hub and the feeds; any thread may call anything."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ...stream.redact import redact
from ...stream.way import Way
from ..answer import Answer
from ..hub_events import HubStopped
from ..question import Question
from ..shown import Overlay, Picture
from .engine_room import EngineRoom
from .looking import found_in, row_of
from .moments import rfc3339
from .telling import Teller
from .views import (
    EventRow,
    Hit,
    NoStream,
    NotReady,
    StreamEntry,
    StreamState,
    StreamTaken,
    TooMany,
)
from .watched import Watched

if TYPE_CHECKING:
    from ..engine import Engine
    from .cluster_room import ClusterRoom
    from .config_file import ServeConfig

__all__ = [
    "EventRow",
    "Hit",
    "NoStream",
    "NotReady",
    "Overlay",
    "Picture",
    "StreamEntry",
    "StreamState",
    "StreamTaken",
    "Streams",
    "TooMany",
]

_log = logging.getLogger(__name__)

MAX_SEARCHES = 2  # at once: the hub's thread writes into the same logs


class Streams:
    """The streams of one server, and the one engine that watches them.

        config, clients --add--> feeds --> hub (its thread owns the engine) --lines--> listeners, followers
        questions ------ask-------------->  |
        routes -------- state, events, search, pictures: read beside it, and seldom through it

    Entered, it loads the model and opens the config's streams, both in threads of its own; until the model is there,
    streams are connecting and questions are refused with NotReady. Closed, it ends the streams and flushes their
    sessions; it may be closed again.

    engine: one that is loaded already, with the config's settings; closed with this.
    ray: "local", or the address of a cluster, where models and sources run; None: in this process.
    num_workers: processes with a model each, on Ray.
    """

    def __init__(
        self, config: ServeConfig, *, engine: Engine | None = None, ray: str | None = None, num_workers: int = 1
    ) -> None:
        self.config = config
        self._changed = threading.Condition()  # guards all below and the room's, and tells of what is new
        self._watched: dict[str, Watched] = {}
        self._is_closing = self._is_closed = False
        self._num_asked = 0
        self._teller = Teller()
        self._room: EngineRoom | ClusterRoom
        if ray is None:
            self._room = EngineRoom(config, self._changed, self._teller.tell, engine=engine)
        else:
            from .cluster_room import ClusterRoom

            self._room = ClusterRoom(config, self._changed, self._teller.tell, ray=ray, num_workers=num_workers)
        self._searching = threading.BoundedSemaphore(MAX_SEARCHES)

    def __enter__(self) -> Self:
        for entry in self.config.streams:
            self._watched[entry.id] = Watched(entry, rfc3339(time.time()))
        self._teller.start()
        self._room.start(list(self._watched.values()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def refuse(self) -> None:
        """Takes no more questions and streams; what goes on goes on until `close`."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Ends everything; what outlives the process is brought to rest first. May be called again."""
        self.refuse()
        with self._changed:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            return
        self._room.close()
        for watched in self._watched.values():
            if watched.feed is not None:
                watched.feed.close()
        self._teller.close()
        _log.info("all streams have ended")

    def wait_until_loaded(self, timeout_s: float | None = None) -> bool:
        """Waits until the model is there and the config's streams have begun, or it is known that it never will be;
        whether it is."""
        with self._changed:
            self._changed.wait_for(lambda: self._room.is_open or self._room.problem is not None, timeout_s)
            return self._room.is_open

    @property
    def is_loaded(self) -> bool:
        """Whether the model is there, and questions are taken."""
        return self._room.is_open

    @property
    def load_problem(self) -> str | None:
        """Why the model could not be loaded."""
        return self._room.problem

    @property
    def is_closing(self) -> bool:
        return self._is_closing

    @property
    def model_name(self) -> str:
        return self.config.engine.model

    @property
    def declared(self) -> tuple[str, ...]:
        """Ids of the streams that the config declares."""
        return tuple(entry.id for entry in self.config.streams)

    @property
    def hub_turn_age_s(self) -> float | None:
        """Seconds since the hub's thread last came round; None where it does not run."""
        return None if self._room.hub is None else self._room.hub.turn_age_s

    @property
    def num_questions(self) -> int:
        """How many are being answered, or wait for it."""
        return self._num_asked

    # Streams come and go.

    def add(self, entry: StreamEntry, *, way: Way | None = None, is_hidden: bool = False) -> StreamState:
        """Begins to watch a stream. A camera that does not answer is tried until it does.

        way: how its source is connected to, where a client named it; None: straight.
        is_hidden: it is on no list, and counts for no limit; for questions about a video.
        Raises ValueError for what cannot be opened, StreamTaken, TooMany and NotReady.
        """
        watched = Watched(entry, rfc3339(time.time()), is_hidden, way)
        with self._changed:
            self._check_open()
            if entry.id in self._watched:
                raise StreamTaken(f"there is a stream {entry.id!r} already; remove it, or take another id")
            most = self.config.limits.num_streams
            if not is_hidden and sum(not one.is_hidden for one in self._watched.values()) >= most:
                raise TooMany(f"there are {most} streams, and no more are watched at once; remove one first")
            self._watched[entry.id] = watched
        try:
            self._room.admit(watched)
        except BaseException as error:
            with self._changed:
                self._watched.pop(entry.id, None)
            if watched.feed is not None:
                watched.feed.close()
            if isinstance(error, OSError):
                raise ValueError(f"stream {entry.id!r} cannot be watched: {redact(str(error))}") from error
            raise
        _log.info("stream %r is added", entry.id)
        return self.state(entry.id)

    def remove(self, stream_id: str) -> None:
        """Ends a stream, and flushes what it knows. NoStream where there is none, or it is leaving already."""
        with self._changed:
            watched = self._known(stream_id)
            if not watched.is_settled and (self._room.hub is not None or watched.feed is None):
                raise StreamTaken(f"stream {stream_id!r} is just being opened; remove it in a moment")
            watched.is_leaving = True
            hub = self._room.hub
        try:
            if watched.has_begun and hub is not None:
                hub.remove(stream_id).result()
            elif watched.feed is not None:
                watched.feed.close()
        except HubStopped:
            _log.debug("stream %r ended with the hub", stream_id)
        finally:
            with self._changed:
                self._watched.pop(stream_id, None)
                self._changed.notify_all()
        _log.info("stream %r is removed", stream_id)

    def state(self, stream_id: str) -> StreamState:
        """How one stream is doing."""
        with self._changed:
            watched, hub = self._known(stream_id), self._room.hub
        return watched.state(None if hub is None else hub.stats().get(stream_id))

    def states(self) -> list[StreamState]:
        """How all streams are doing, in the order in which they were added."""
        with self._changed:
            shown = [one for one in self._watched.values() if not (one.is_hidden or one.is_leaving)]
            hub = self._room.hub
        stats = {} if hub is None else hub.stats()
        return [one.state(stats.get(one.entry.id)) for one in shown]

    def stop(self, stream_id: str) -> None:
        """Takes no more frames of a stream; what it has shown can still be asked about."""
        with self._changed:
            feed = self._known(stream_id).feed
        if feed is not None:
            feed.close()

    # Questions.

    def ask(
        self, stream_id: str, question: Question, *, on_text: Callable[[str], None] | None = None
    ) -> Future[Answer]:
        """Asks a stream; what is wrong with the question is the future's exception.

        on_text: called with the text so far, from a thread that must not be held up.
        Raises NoStream, NotReady and TooMany.
        """
        with self._changed:
            self._check_open()
            watched, hub = self._known(stream_id), self._room.hub
            if hub is None or not watched.has_begun:
                why = watched.problem or self._room.problem
                raise NotReady(f"stream {stream_id!r} cannot be asked yet: {why or 'the model is being loaded'}")
            most = self.config.limits.num_questions
            if self._num_asked >= most:
                raise TooMany(f"{most} questions are being answered, and no more are taken at once; ask in a moment")
            self._num_asked += 1
            watched.num_questions += 1
        asked = hub.ask(stream_id, question, on_text=on_text)
        asked.add_done_callback(self._answered)
        return asked

    def give_up(self, asked: Future[Answer]) -> None:
        """Stops answering what `ask` gave this for: whoever asked has gone."""
        if self._room.hub is not None:
            self._room.hub.give_up(asked, HubStopped("whoever asked has gone"))

    # What was seen.

    def events(self, stream_id: str, *, after: int = -1, most: int = 1000) -> list[EventRow]:
        """The first `most` lines of a stream's log with numbers larger than `after`."""
        if most < 0:
            raise ValueError(f"most is a number of lines, 0 or more; got {most}")
        rows = self.recent_events(stream_id, after=after, most=most)
        if rows is not None:
            return rows
        with self._changed:
            watched = self._known(stream_id)
        try:
            lines = [] if watched.log is None else watched.log.after(after, most)
        except ValueError:  # it was closed meanwhile
            raise self._missing(stream_id) from None
        newest = self._room.newest(stream_id)
        return [row_of(line, newest) for line in lines]

    def recent_events(self, stream_id: str, *, after: int = -1, most: int = 1000) -> list[EventRow] | None:
        """The same, where it is at hand, so that nobody has to wait; None where it is not: `events` looks it up."""
        with self._changed:
            return self._known(stream_id).rows_after(after, most, self._room.newest(stream_id))

    def last_event(self, stream_id: str) -> int:
        """The number of the newest line; -1 before the first."""
        with self._changed:
            return self._known(stream_id).last_number

    def wait_for_event(self, stream_id: str, after: int, timeout_s: float) -> bool:
        """Waits until a stream's log has a line with a larger number; whether it does. NoStream where it leaves."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closing or self._known(stream_id).last_number > after, min(timeout_s, 3600.0)
            )
            return self._known(stream_id).last_number > after

    def on_event(self, callback: Callable[[str, EventRow], None]) -> None:
        """From now on, calls this with every line that comes, from a thread of its own that all who listen share."""
        self._teller.listen(callback)

    def search(self, words: str, *, most: int = 50) -> list[Hit]:
        """Lines of all streams' logs that hold any of the words, best first."""
        if most < 0:
            raise ValueError(f"most is a number of lines, 0 or more; got {most}")
        with self._changed:
            searched = [one for one in self._watched.values() if not (one.is_hidden or one.is_leaving)]
        with self._searching:
            logs = [(one.entry.id, one.log, self._room.newest(one.entry.id)) for one in searched if one.log is not None]
            return found_in(logs, words, most)

    def snapshot(self, stream_id: str) -> Picture | None:
        """The newest frame that was taken; None before the first."""
        with self._changed:
            watched = self._known(stream_id)
        return self._room.snapshot(watched)

    def frame(self, stream_id: str, time_s: float) -> Picture | None:
        """The keyframe kept nearest to a moment, or the newest frame where that is nearer; None where there is none."""
        if not math.isfinite(time_s):
            raise ValueError(f"a moment is a finite number of seconds; got {time_s}")
        with self._changed:
            watched = self._known(stream_id)
        try:
            return self._room.frame(watched, time_s)
        except ValueError:  # it left meanwhile
            raise self._missing(stream_id) from None

    def overlay(self, stream_id: str) -> Overlay | None:
        """What was done for the newest frame that was encoded; None before the first."""
        with self._changed:
            self._known(stream_id)
        return self._room.overlay(stream_id)

    def _answered(self, asked: Future[Answer]) -> None:
        with self._changed:
            self._num_asked -= 1

    def _known(self, stream_id: str) -> Watched:
        watched = self._watched.get(stream_id)
        if watched is None or watched.is_leaving:
            raise self._missing(stream_id)
        return watched

    def _missing(self, stream_id: str) -> NoStream:
        there_are = ", ".join(name for name, one in self._watched.copy().items() if not one.is_hidden) or "none"
        return NoStream(f"there is no stream {stream_id[:200]!r}; there are: {there_are[:1000]}")

    def _check_open(self) -> None:
        if self._is_closing:
            raise NotReady("the server is shutting down; ask again when it is back")
