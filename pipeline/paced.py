"""PacedSource: a recording that behaves as a camera does: its frames come when the clock says so."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..stream import Frame, Sampler, Source


class PacedSource(Source):
    """Gives each frame of a recorded source at its time, counted from the first one; it waits for nobody.

    A reader that comes late gets what is overdue at once: the hand-over behind it drops what is not the newest, as it
    does for a camera. `wall_s` is the time at which the frame was due. Another iteration starts from the beginning.

    inner: the recorded source; closed with this one.
    """

    def __init__(self, inner: Source) -> None:
        if inner.is_live:
            raise ValueError(f"got {inner!r}, which keeps its own time; only a recorded source is paced")
        super().__init__(inner.uri, stream_id=inner.stream_id, is_live=True, duration_s=inner.duration_s)
        self._inner = inner
        self.stats = inner.stats

    def __iter__(self) -> Iterator[Frame]:
        return self._paced(self._inner)

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """Only what is due is made, and waited for."""
        return self._paced(self._inner.sampled(sampler))

    def close(self) -> None:
        super().close()
        self._inner.close()

    def _paced(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        self.check_open()
        began_s: float | None = None
        for frame in frames:
            if began_s is None:  # the first frame is due now
                began_s = time.time() - frame.pts_s
            due_s = began_s + frame.pts_s
            if self._closed.wait(max(0.0, due_s - time.time())):
                return
            yield replace(frame, wall_s=due_s)
