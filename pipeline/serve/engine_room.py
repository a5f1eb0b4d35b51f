"""EngineRoom: the engine and its hub, loaded while others wait, and streams brought to them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...memory.event_log import Line
from ...stream import Frame
from ...stream.redact import redact
from ..shown import Overlay, Picture, kept_near, nearer, overlay_of
from .late_feed import feed_of
from .looking import row_of
from .views import EventRow
from .watched import Watched

if TYPE_CHECKING:
    from ..engine import Engine
    from ..hub import Hub
    from ..session import Session
    from .config_file import ServeConfig

_log = logging.getLogger(__name__)

_LEAVE_S = 10.0
_LOOK_S = 30.0  # a turn of a large model may take a while


class EngineRoom:
    """Loads the model in a thread of its own, then begins what was opened until then; what comes later begins at once.

        open:  watched --> its feed               from any thread, before there is a hub and after
        begin: watched --> the hub's, its lines --> told

    changed: guards what is here and in the streams, and is notified of all that becomes different.
    tell: called with every line of a stream that is on the list, from the hub's thread, so it must be short.
    hub: None until the model is there. is_open: whether the streams of the beginning have begun too. problem: why the
    model could not be loaded.
    """

    def __init__(
        self,
        config: ServeConfig,
        changed: threading.Condition,
        tell: Callable[[str, EventRow], None],
        *,
        engine: Engine | None = None,
    ) -> None:
        self._config, self._changed, self._told = config, changed, tell
        self._engine = engine
        self.hub: Hub | None = None
        self.is_open = self._is_closed = False
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._load, name="millpond loading", daemon=True)
        self._declared: list[Watched] = []
        self._opened: list[Watched] = []  # that wait for the hub

    def start(self, declared: Sequence[Watched]) -> None:
        """Begins to load, and to open these; one that is broken is told so, and the others take no part in it."""
        self._declared = list(declared)
        self._thread.start()

    def close(self) -> None:
        """Ends the hub, and with it all streams; their sessions are flushed first."""
        with self._changed:
            self._is_closed, self.is_open = True, False
            hub = self.hub
        if hub is not None:
            hub.close()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_S)  # a large model that is still being loaded ends with the process
        if self._engine is not None and not self._thread.is_alive():
            self._engine.close()

    def newest(self, stream_id: str) -> Frame | None:
        """The newest frame of a stream."""
        sight = None if self.hub is None else self.hub.sight(stream_id)
        return None if sight is None else sight.newest

    def snapshot(self, watched: Watched) -> Picture | None:
        """A stream's newest frame."""
        newest = self.newest(watched.entry.id)
        return None if newest is None else watched.shot(newest)

    def frame(self, watched: Watched, time_s: float) -> Picture | None:
        """The picture kept nearest to a moment, or the newest where that is nearer. ValueError where it has left."""
        if self.hub is None or not watched.has_begun:
            return None
        stream_id = watched.entry.id
        kept = self.hub.look(stream_id, partial(kept_near, time_s=time_s)).result(_LOOK_S)
        return nearer(kept, self.newest(stream_id), time_s, watched.shot)

    def overlay(self, stream_id: str) -> Overlay | None:
        """What was done for a stream's newest frame that was encoded."""
        return overlay_of(None if self.hub is None else self.hub.sight(stream_id))

    def admit(self, watched: Watched) -> None:
        """Opens a stream, and has it begin; where there is no hub yet, that comes with it. Raises what is wrong."""
        hub = self.open(watched)
        if hub is not None:
            self.begin(watched, hub)

    def open(self, watched: Watched) -> Hub | None:
        """Opens what it is to be watched by, and gives the hub; None where that comes later, and begins it then."""
        feed = feed_of(
            watched.entry.spec(place_of(watched, self._config)), fps=self._config.engine.fps, way=watched.way
        )
        with self._changed:
            watched.feed = feed
            if self.hub is None:
                self._opened.append(watched)
            return self.hub

    def begin(self, watched: Watched, hub: Hub) -> None:
        """Has the hub watch it. Raises what is wrong with it."""
        entry, feed = watched.entry, watched.feed
        if feed is None:
            raise ValueError(f"got {entry!r}, which is not open; call open first")
        hub.add(
            feed,
            question=entry.question,
            narrate=entry.narrate,
            at=place_of(watched, self._config),
            on_line=partial(self._line, watched),
        ).result()
        hub.look(entry.id, partial(self._take_over, watched)).result()

    def _load(self) -> None:
        declared = self._declared
        with ThreadPoolExecutor(min(32, len(declared) or 1), thread_name_prefix="millpond opening") as openers:
            for watched in declared:
                openers.submit(self._try, watched, partial(self.open, watched))
            try:
                hub = self._started_hub()
            except Exception as error:  # noqa: BLE001 - whoever waits has to learn of whatever it is
                _log.exception("the model %r cannot be loaded", self._config.engine.model)
                with self._changed:
                    self.problem = redact(str(error)) or type(error).__name__
                    self._changed.notify_all()
                return
        with self._changed:
            self.hub = hub
            waiting = [one for one in self._opened if not one.is_leaving]
        for watched in waiting:
            self._try(watched, partial(self.begin, watched, hub))
        with self._changed:
            self.is_open = not self._is_closed
            self._changed.notify_all()
        if self.is_open:
            _log.info("the model %r is loaded", self._config.engine.model)
        else:
            hub.close()

    def _started_hub(self) -> Hub:
        from ..engine import Engine
        from ..hub import Hub

        self._engine = self._engine or Engine(self._config.engine)
        return Hub(self._engine).start()

    def _try(self, watched: Watched, what: Callable[[], object]) -> None:
        try:
            what()
        except Exception as error:  # noqa: BLE001 - it is this stream's
            watched.problem = redact(str(error), watched.entry.source) or type(error).__name__
            _log.warning("stream %r cannot be watched: %s", watched.entry.id, watched.problem)

    def _take_over(self, watched: Watched, session: Session) -> None:
        """In the hub's thread: what came before the log was at hand is in it."""
        with self._changed:
            watched.take_over(session)
            self._changed.notify_all()

    def _line(self, watched: Watched, line: Line) -> None:
        """In the hub's thread: a stream's log has another line."""
        row = row_of(line, self.newest(watched.entry.id))
        with self._changed:
            watched.put(line)
            self._changed.notify_all()
        if not watched.is_hidden:
            self._told(watched.entry.id, row)


def place_of(watched: Watched, config: ServeConfig) -> str | None:
    """Where a stream's session outlives the process."""
    entry, at = watched.entry, config.memory_at
    if watched.is_hidden or entry.memory is not None or at is None or "://" in at:
        return None if watched.is_hidden else entry.memory or at
    return str(Path(at) / quote(entry.id, safe=" "))
