"""ClusterHub: a cluster on Ray, asked as a hub of this process is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from ...stream import SourceLost, SourceStats
from ..answer import Answer
from ..cluster.run import Cluster, ClusterError
from ..feeds import Feed
from ..hub_events import HubEvent, HubStopped
from ..hub_stream import StreamStats
from ..question import Question
from ..stream_spec import StreamSpec

_EVENTS_EVERY_S = 0.5
_STATS_EVERY_S = 1.0
_ASK_S = 120.0


class ClusterHub:
    """What the desk asks of a hub, of a cluster whose workers have the hubs.

    on_event: called with what the workers tell, from a thread of its own.
    """

    def __init__(self, cluster: Cluster, on_event: Callable[[HubEvent], None], *, num_questions: int) -> None:
        self._cluster, self._on_event = cluster, on_event
        self._askers = ThreadPoolExecutor(num_questions, thread_name_prefix="millpond asking")
        self._stats: dict[str, StreamStats] = {}
        self._looked_s = time.monotonic()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"millpond cluster {name}", daemon=True)
            for name, run in (("events", self._listen), ("stats", self._look_after))
        ]
        for thread in self._threads:
            thread.start()

    def add(self, spec: StreamSpec) -> None:
        self._cluster.add(spec)

    def remove(self, stream_id: str) -> Future[None]:
        """Lets a stream go."""
        removed: Future[None] = Future()
        try:
            self._cluster.remove(stream_id)
            removed.set_result(None)
        except ValueError as error:
            removed.set_exception(error)
        return removed

    def ask(
        self, stream_id: str, question: Question, *, on_text: Callable[[str], None] | None = None
    ) -> Future[Answer]:
        """Asks a stream, wherever it is. on_text: called with the text so far, from a thread of this object."""

        def ask() -> Answer:
            try:
                return self._cluster.ask(stream_id, question, timeout_s=_ASK_S, on_text=on_text)
            except ClusterError as error:
                raise HubStopped(str(error)) from error

        return self._askers.submit(ask)

    def give_up(self, asked: Future[Answer], reason: Exception) -> None:
        """Does not ask any more, where that has not begun; what has begun ends by itself."""
        asked.cancel()

    def stats(self) -> dict[str, StreamStats]:
        """How the streams are doing, as was known a second ago."""
        return dict(self._stats)

    @property
    def ended(self) -> Mapping[str, str | None]:
        """Streams that have ended, and why."""
        return self._cluster.ended

    @property
    def turn_age_s(self) -> float:
        """Seconds since the workers were last heard."""
        return time.monotonic() - self._looked_s

    def close(self) -> None:
        """Ends the cluster; what it still had to tell is told."""
        self._closing.set()
        self._cluster.close()
        for thread in self._threads:
            thread.join()
        self._askers.shutdown(cancel_futures=True)

    def _listen(self) -> None:
        while not self._closing.is_set():
            for event in self._cluster.events(_EVENTS_EVERY_S):
                self._on_event(event)

    def _look_after(self) -> None:
        while not self._closing.wait(_STATS_EVERY_S):
            with suppress(ClusterError):
                self._stats = self._cluster.stats()
                self._looked_s = time.monotonic()


class FarFeed(Feed):
    """A stream whose frames another process takes: here there is only how it is doing."""

    def __init__(self, stream_id: str, hub: ClusterHub) -> None:
        self.stream_id = stream_id
        self.stats = SourceStats()
        self._hub = hub

    def on_news(self, callback: Callable[[], None]) -> None:
        """Nothing comes by here."""

    def take(self) -> None:
        return None

    @property
    def num_waiting(self) -> int:
        return 0

    @property
    def num_overtaken(self) -> int:
        told = self._hub.stats().get(self.stream_id)
        return 0 if told is None else told.num_overtaken

    @property
    def is_ended(self) -> bool:
        return self.stream_id in self._hub.ended

    @property
    def problem(self) -> Exception | None:
        why = self._hub.ended.get(self.stream_id)
        return None if why is None else SourceLost(why)

    @property
    def state(self) -> str:
        told = self._hub.stats().get(self.stream_id)
        return "ended" if self.is_ended else "connecting" if told is None else told.state

    def close(self) -> None:
        """Whoever reads it ends it."""
