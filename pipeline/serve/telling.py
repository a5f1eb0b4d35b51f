"""Teller: tells those who listen what is new, in a thread of its own, so that none of them holds up who says it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from .views import EventRow

_log = logging.getLogger(__name__)

Listener = Callable[[str, EventRow], None]

_MAX_NEWS = 10_000
_LEAVE_S = 10.0


class Teller:
    """Rows in, from any thread and at once; out to every listener, one row after the other. Where they are slower than
    the rows come, some are not told, and the log says so once."""

    def __init__(self) -> None:
        self._news: queue.Queue[tuple[str, EventRow] | None] = queue.Queue(_MAX_NEWS)
        self._listeners: tuple[Listener, ...] = ()
        self._is_behind = False
        self._thread = threading.Thread(target=self._run, name="millpond telling", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def listen(self, listener: Listener) -> None:
        """From now on it is told."""
        self._listeners = (*self._listeners, listener)

    def tell(self, stream_id: str, row: EventRow) -> None:
        """Has it told soon."""
        try:
            self._news.put_nowait((stream_id, row))
            self._is_behind = False
        except queue.Full:
            if not self._is_behind:
                _log.warning("whoever listens to the streams is too slow; some lines are not told")
            self._is_behind = True

    def close(self) -> None:
        """Tells what waits, and ends."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            with suppress(queue.Full):
                self._news.put(None, timeout=_LEAVE_S)
            self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        while (news := self._news.get()) is not None:
            for listener in self._listeners:
                try:
                    listener(*news)
                except Exception:  # noqa: BLE001 - it is not the others' fault
                    _log.exception("whoever listens to the streams failed")
