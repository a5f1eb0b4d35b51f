"""LateFeed: a feed whose source is opened meanwhile, so that a dead camera keeps nobody waiting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ...stream import Frame, Source, SourceError, SourceLost, SourceStats
from ...stream.source import source_kind
from ...stream.way import Way
from ..feeds import Feed, SourceFeed
from ..stream_spec import StreamSpec

_log = logging.getLogger(__name__)


class LateFeed(Feed):
    """The frames of a stream whose source may take a while to open.

    A peer that is not there is tried again until it answers; what cannot be opened at all ends the feed, and is its
    problem. Any thread may call anything.

    way: how it is connected to; None: FFmpeg does that itself.
    """

    def __init__(self, spec: StreamSpec, *, fps: float, way: Way | None = None) -> None:
        self.stream_id = spec.stream_id
        self.stats = SourceStats()
        self._spec, self._fps = spec, fps
        self._options = {} if way is None else {"way": way}
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._inner: SourceFeed | None = None
        self._problem: Exception | None = None
        self._is_closed = False
        self._callback: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._open, name=f"millpond opening {spec.stream_id}", daemon=True)

    def on_news(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._thread.start()

    def take(self) -> Frame | None:
        return None if self._inner is None else self._inner.take()

    @property
    def num_waiting(self) -> int:
        return 0 if self._inner is None else self._inner.num_waiting

    @property
    def num_overtaken(self) -> int:
        return 0 if self._inner is None else self._inner.num_overtaken

    @property
    def is_ended(self) -> bool:
        return self._problem is not None or self._is_closed or (self._inner is not None and self._inner.is_ended)

    @property
    def problem(self) -> Exception | None:
        return self._problem or (None if self._inner is None else self._inner.problem)

    @property
    def state(self) -> str:
        if self.is_ended:
            return "ended"
        return "connecting" if self._inner is None else self._inner.state

    @property
    def trouble(self) -> str | None:
        """Why no pictures come just now, where the source says."""
        trouble: str | None = getattr(self._source, "problem", None)
        return trouble if self.problem is None else str(self.problem)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            inner = self._inner
        if inner is not None:
            inner.close()

    def _open(self) -> None:
        assert self._callback is not None
        try:
            source = self._opened()
        except Exception as error:  # noqa: BLE001 - whoever takes has to learn of whatever ends this
            self._problem = error
        else:
            self._take_on(source)
        self._callback()

    def _opened(self) -> Source:
        """The source. Its peer is asked once, so that a recording is known for one; then as long as it takes."""
        try:
            return self._spec.open(**self._options)
        except (SourceError, SourceLost) as error:
            if source_kind(self._spec.uri) != "live":
                raise
            _log.warning("%s; stream %r is tried again until it answers", error, self.stream_id)
            return self._spec.open(must_answer=False, **self._options)

    def _take_on(self, source: Source) -> None:
        with self._lock:
            if not self._is_closed:
                self._source, self.stats = source, source.stats
                self._inner = SourceFeed(source, fps=self._fps)
                assert self._callback is not None
                self._inner.on_news(self._callback)
                return
        source.close()


def feed_of(spec: StreamSpec, *, fps: float, way: Way | None = None) -> Feed:
    """The stream's frames. What is on this machine is opened now, so that who asked learns what is wrong with it."""
    if source_kind(spec.uri) == "live":
        return LateFeed(spec, fps=fps, way=way)
    return SourceFeed(spec.open(), fps=fps)
