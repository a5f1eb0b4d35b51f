"""StreamClock: the times of one stream, made never to run backwards, and turned into seconds once."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Placed(NamedTuple):
    """A frame's place in time. `is_own` says that the time is the stream's own, not one that the clock had to
    make up; `is_anew` that the stream's clock started again here."""

    pts_s: float
    is_own: bool
    is_anew: bool = False


class StreamClock:
    """Places the frames of one stream, given in the order of display; not thread-safe, one per stream.

    time_base: seconds per tick.
    origin_ticks: the tick that is 0 s; that of the first frame if None, or if the first frame is earlier.
    step_ticks: the usual distance of two frames, for a frame that brings neither time nor duration.
    """

    def __init__(self, time_base: Fraction, origin_ticks: int | None, step_ticks: int) -> None:
        self.time_base = time_base
        self._origin = origin_ticks
        self._step = max(1, step_ticks)
        # A step back by more than this is a clock that started again (a joined recording, a counter that
        # wrapped: 33 bits of 90 kHz last 26.5 h); by less it is jitter, or the order of decoding.
        self.restart_ticks = 8 * self._step
        self._last: int | None = None
        self._last_step = self._step
        self._shift = 0
        self._is_guessed = False

    def place(self, ticks: int | None, duration_ticks: int | None = None) -> Placed:
        """The time of the next frame. A missing time follows the frame before; a repeated or earlier one
        becomes that of the frame before; after a restart the stream goes on one step later, on the new
        clock."""
        is_anew = False
        if ticks is None:
            value = (self._origin or 0) if self._last is None else self._last + self._last_step
            is_own = False
            self._is_guessed |= self._last is None and self._origin is None
        else:
            value = ticks + self._shift
            if self._is_guessed and self._last is not None:
                # Tick 0 was taken for what came before without a time: RTSP starts there, others anywhere.
                if not 0 < value - self._last <= self.restart_ticks:
                    self._shift = self._last + self._last_step - ticks
                    value = ticks + self._shift
                self._is_guessed = False
            is_own = self._last is None or value > self._last
            if self._last is not None and value < self._last:
                if self._last - value > self.restart_ticks:
                    self._shift += self._last + self._last_step - value
                    value = self._last + self._last_step
                    is_anew = True
                else:
                    value = self._last
        if self._origin is None or (self._last is None and value < self._origin):
            self._origin = value
        self._last = value
        self._last_step = duration_ticks if duration_ticks and duration_ticks > 0 else self._step
        return Placed(self.seconds(value), is_own, is_anew)

    def start_no_later_than(self, ticks: int) -> None:
        """Sets the origin as the first frame would, for a reading that begins in the middle."""
        if self._origin is None or ticks < self._origin:
            self._origin = ticks

    def seconds(self, ticks: int) -> float:
        """Seconds since the origin; integers until the one division."""
        return (ticks - (self._origin or 0)) * self.time_base.numerator / self.time_base.denominator

    def ticks(self, pts_s: float) -> int:
        """The last tick at or before a time; a nanosecond, if that is less than a tick, forgives rounding."""
        forgiven = min(Fraction(1, 10**9) / self.time_base, Fraction(1, 32))
        return (self._origin or 0) + int((Fraction(pts_s) / self.time_base + forgiven) // 1)
