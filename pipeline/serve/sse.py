"""Server-Sent Events: those who follow a stream's log, each at its own place, all told by one thread of the desk's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from .schemas import EventOut
from .streams import Streams
from .views import EventRow, NoStream

# A connection that says nothing for longer is cut by proxies.
_PING_S = 15.0
_RETRY_MS = 2000
_AT_ONCE = 100


class Followers:
    """Everybody who follows a stream. Costs the streams nothing: what is new is looked up in what the desk has at hand,
    by the event loop, and a client that reads slowly keeps no line waiting but its own.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._bells: dict[str, set[asyncio.Event]] = {}
        self._is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins to hear of news; in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._streams.on_event(self._heard)

    def end(self) -> None:
        """Lets all of them go, and takes no more; in the event loop."""
        self._is_ending = True
        for stream_id in tuple(self._bells):
            self.ring(stream_id)

    def ring(self, stream_id: str) -> None:
        """Has those who follow a stream look again; in the event loop."""
        for bell in self._bells.get(stream_id, ()):
            bell.set()

    def follow(self, stream_id: str, after: int | None) -> AsyncIterator[bytes]:
        """A stream's lines with numbers larger than `after`, then each that comes; None: only those.

        Raises NoStream, at once.
        """
        last = self._streams.last_event(stream_id)
        # A log that began anew has smaller numbers than a client may know: it gets all that is there.
        start = last if after is None else -1 if after > last else after
        return self._follow(stream_id, start)

    async def _follow(self, stream_id: str, after: int) -> AsyncIterator[bytes]:
        bell = asyncio.Event()
        self._bells.setdefault(stream_id, set()).add(bell)
        try:
            yield format_sse_event(comment=f"{stream_id}", retry=_RETRY_MS)
            while not self._is_ending:
                bell.clear()
                rows = await self._rows(stream_id, after)
                for row in rows:
                    yield as_event(stream_id, row)
                    after = row.number
                if rows:
                    continue
                try:
                    await asyncio.wait_for(bell.wait(), _PING_S)
                except TimeoutError:
                    yield format_sse_event(comment="nothing new")
        except NoStream:
            yield format_sse_event(event="end", data_str="{}")
        finally:
            self._bells[stream_id].discard(bell)
            if not self._bells[stream_id]:
                del self._bells[stream_id]

    async def _rows(self, stream_id: str, after: int) -> list[EventRow]:
        rows = self._streams.recent_events(stream_id, after=after, most=_AT_ONCE)
        if rows is None:
            rows = await run_in_threadpool(self._streams.events, stream_id, after=after, most=_AT_ONCE)
        return rows

    def _heard(self, stream_id: str, row: EventRow) -> None:
        """In the desk's thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.ring, stream_id)


def as_event(stream_id: str, row: EventRow) -> bytes:
    """A line as a Server-Sent Event; its id is what a client goes on from."""
    return format_sse_event(id=str(row.number), data_str=EventOut.of(stream_id, row).model_dump_json())
