"""CausalFrames: the guard between a source and whoever answers. Nothing later than a question gets past it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ...stream import Frame, Span
from ..answer import Answer


class NotCausal(RuntimeError):
    """Something from after a question's moment was handed out, or had been seen when it was answered."""


class CausalFrames:
    """A source's frames, handed out up to a moment and no further. Not thread-safe: one pass's.

        source: 0 1 2 3 4 5 ...        until(3.5) hands out 0 1 2 3
                        ^ held         4 is known to be later, is held here, and comes first after the next until(...)

    One frame is looked at ahead: without it nobody can tell that all frames up to a moment have come. It is not handed
    out. Frames must come in order of time: of a source that hands out a later one first, nothing can be trusted. What
    is handed out is a copy: a source that writes its next picture over the last one cannot show it to a method that
    has yet to look at that.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = iter(frames)
        self._held: Frame | None = None
        self._read_s = float("-inf")
        self.horizon_s = float("-inf")
        self.last_s: float | None = None

    def until(self, moment_s: float) -> Iterator[Frame]:
        """Moves the moment on, and hands out the frames up to it, its own included. ValueError for an earlier one."""
        if not moment_s >= self.horizon_s:
            raise ValueError(f"questions come in order of time; got {moment_s} s after {self.horizon_s} s; sort them")
        self.horizon_s = moment_s
        while True:
            frame = self._next()
            if frame is None:
                return
            if frame.pts_s > self.horizon_s:
                self._held = frame
                return
            self.last_s = frame.pts_s
            yield frame

    def check(self, answer: Answer) -> None:
        """Raises NotCausal for an answer that rests on more than was handed out so far."""
        for what, time_s in (("seen until", answer.seen_until_s), ("read up to", _end_s(answer.used))):
            if time_s > self.horizon_s:
                raise NotCausal(
                    f"an answer as of {self.horizon_s:.3f} s must rest on nothing later; got one that has {what} "
                    f"{time_s:.3f} s: {answer!r}"
                )

    def _next(self) -> Frame | None:
        if self._held is not None:
            frame, self._held = self._held, None
            return frame
        frame = next(self._frames, None)
        if frame is None:
            return None
        if frame.pts_s < self._read_s:
            raise NotCausal(
                f"frames must come in order of time; got {frame!r} after one at {self._read_s:.3f} s: what was shown "
                "before may have been from after a question"
            )
        self._read_s = frame.pts_s
        return replace(frame, rgb_HW3=frame.rgb_HW3.copy())


def _end_s(used: Iterable[Span]) -> float:
    return max((span.end_s for span in used), default=float("-inf"))
