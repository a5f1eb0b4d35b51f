"""What alerts need of whoever runs the streams: `Streams` of the server, or a hub of one's own with a little around."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from ..answer import Answer
from ..question import Question


class StreamNow(Protocol):
    """How a stream is doing now.

    seen_until_s: stream time of the newest frame; None before the first. num_frames: how many were taken.
    change_share: share of the picture that changed with the newest frame, 0 to 1.
    """

    @property
    def seen_until_s(self) -> float | None: ...

    @property
    def num_frames(self) -> int: ...

    @property
    def change_share(self) -> float: ...


class LogRow(Protocol):
    """A line of a stream's log."""

    @property
    def kind(self) -> str: ...

    @property
    def wall(self) -> str | None: ...


class AlertDesk(Protocol):
    """Whoever runs the streams. Any thread may call; `state` and `ask` raise KeyError, or their future ValueError,
    where there is no such stream. `on_event` calls from a thread of the desk's, never the hub's."""

    def ask(self, stream_id: str, question: Question) -> Future[Answer]: ...

    def state(self, stream_id: str) -> StreamNow: ...

    def on_event(self, callback: Callable[[str, LogRow], None]) -> None: ...
