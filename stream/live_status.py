"""LiveStatus: how a live source stands with its peer; says each change once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .source import SourceError, State
from .stats import SourceStats

_log = logging.getLogger(__name__)


class LiveStatus:
    """Made by a live source and moved by its reader; may be read by any thread.

        connecting ──▶ live ◀──▶ lost          ended, from any of them

    A line goes to the log when the peer is lost and when it is back, and while it is away only when there is another
    reason that the user can set right; single attempts are for debugging.

    uri: of the peer, credentials masked.
    stats: where reconnects are counted.
    clock: gives seconds that only grow.
    """

    def __init__(self, uri: str, stats: SourceStats, clock: Callable[[], float] = time.monotonic) -> None:
        self._uri, self._stats, self._clock = uri, stats, clock
        self._lock = threading.Lock()
        self._state: State = "connecting"
        self._problem: str | None = None
        self._away_since_s = clock()
        self._told: str | None = None  # the reason that the log knows of

    @property
    def state(self) -> State:
        return self._state

    @property
    def problem(self) -> str | None:
        """Why no pictures come: a sentence, with no credentials in it; None where they do."""
        return self._problem

    def come(self) -> None:
        """A picture came."""
        if self._state == "live":  # at every picture but the first
            return
        with self._lock:
            if self._state not in ("connecting", "lost"):
                return
            away_s = self._clock() - self._away_since_s
            if self._state == "lost":
                self._stats.num_reconnects += 1
                _log.info("%s is back after %.1f s", self._uri, away_s)
            elif self._told is not None:
                _log.info("connected to %s after %.1f s", self._uri, away_s)
            else:
                _log.info("connected to %s", self._uri)
            self._state, self._problem, self._told = "live", None, None

    def fail(self, problem: Exception) -> None:
        """The connection went, or did not come about; there will be another attempt."""
        sentence = str(problem)
        with self._lock:
            if self._state == "ended":
                return
            is_news = self._told is None or (isinstance(problem, SourceError) and sentence != self._told)
            if self._state == "live":
                self._state, self._away_since_s = "lost", self._clock()
            self._problem = sentence
            if is_news:
                self._told = sentence
                _log.warning("%s; trying again until it answers", sentence)
            else:
                _log.debug("%s", sentence)

    def end(self, problem: Exception | None = None) -> None:
        """No picture will come any more; `problem` says why, unless that was to be expected."""
        with self._lock:
            if self._state == "ended":
                return
            self._state = "ended"
            self._problem = None if problem is None else str(problem)
            if problem is not None:
                _log.info("%s", problem)
