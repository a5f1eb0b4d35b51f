"""Feed: where one stream's frames wait until the model takes them. Nothing here ever blocks the one who takes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from ..stream import Frame, FrameBuffer, RateSampler, Source, SourceStats
from ..stream.frame import carry_gap


class Feed(ABC):
    """One stream's frames, waiting to be taken. Promises: nothing blocks; frames come in order of time; at most a few
    wait, whatever the source sends; any thread may call anything.

    stream_id: whose frames these are.
    stats: counts of the source.
    """

    stream_id: str
    stats: SourceStats

    @abstractmethod
    def on_news(self, callback: Callable[[], None]) -> None:
        """From now on calls this, from any thread, when a frame came and when the feed ended; and starts."""

    @abstractmethod
    def take(self) -> Frame | None:
        """The next frame: of a live stream the newest, of a recording the one after the last. None: none waits now."""

    @property
    @abstractmethod
    def num_waiting(self) -> int:
        """How many frames wait to be taken."""

    @property
    @abstractmethod
    def num_overtaken(self) -> int:
        """How many frames were due, and were overtaken by newer ones before anybody took them."""

    @property
    @abstractmethod
    def is_ended(self) -> bool:
        """Whether no frame waits and none will come."""

    @property
    @abstractmethod
    def problem(self) -> Exception | None:
        """Why it ended; None where it has not, or came to its end."""

    @property
    def state(self) -> str:
        """In a word, for people: live, lost, ended, ..."""
        return "ended" if self.is_ended else "live"

    @abstractmethod
    def close(self) -> None:
        """Ends it; may be called again."""


class SourceFeed(Feed):
    """A source of this process, read by a thread of its own.

        source -> sampler -> [buffer] -> take         live: the newest frame waits; recorded: a few, and none is lost

    The source is the feed's from here on, and closed with it.

    ahead: how many frames of a recording are decoded before they are asked for.
    """

    def __init__(self, source: Source, *, fps: float, stream_id: str | None = None, ahead: int = 2) -> None:
        self.stream_id = stream_id or source.stream_id
        self._source = source
        self._sampler = RateSampler(fps)
        policy = "newest_only" if source.is_live else "block"
        self._buffer: FrameBuffer[Frame] = FrameBuffer(ahead, policy, carry=carry_gap)
        self._callback: Callable[[], None] = _nothing
        self._problem: Exception | None = None
        self._is_done = False
        self._thread = threading.Thread(target=self._run, name=f"millpond feed {self.stream_id}", daemon=True)

    @property
    def stats(self) -> SourceStats:  # type: ignore[override]
        return self._source.stats

    def on_news(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._thread.start()

    def take(self) -> Frame | None:
        if not len(self._buffer):
            return None
        return self._buffer.get(timeout_s=0)

    @property
    def num_waiting(self) -> int:
        return len(self._buffer)

    @property
    def is_ended(self) -> bool:
        return self._is_done and not len(self._buffer)

    @property
    def num_overtaken(self) -> int:
        return self._buffer.num_dropped

    @property
    def problem(self) -> Exception | None:
        return self._problem

    @property
    def state(self) -> str:
        return "ended" if self.is_ended else self._source.state

    def close(self) -> None:
        self._source.close()
        self._buffer.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2.0)

    def _run(self) -> None:
        try:
            for frame in self._source.sampled(self._sampler):
                if not self._buffer.put(frame):
                    break
                self._callback()
        except Exception as error:  # noqa: BLE001 - whoever takes has to learn of whatever ends this thread
            if not self._source.is_closed:
                self._problem = error
        finally:
            self._is_done = True
            self._callback()


def _nothing() -> None:
    """What a feed calls that nobody listens to yet."""
