"""CameraClock: one camera's own time beside this machine's; sees when it jumps, and makes one time of it that never
runs back."""

from __future__ import annotations

import math
from typing import NamedTuple


class Placed(NamedTuple):
    """pts_s: the picture's time, jumps taken out: it never decreases. clock_jumped: whether it jumped just here.
    late_s: how much later it came, for its time, than the one that came soonest; drift left out."""

    pts_s: float
    clock_jumped: bool
    late_s: float = 0.0


class CameraClock:
    """Anchors what a camera says of time to when its pictures arrive. Not thread-safe: its camera's thread's.

        told      0.0  0.1  0.2 | 7.3  7.4 | 0.0  0.1        jumps ahead, then back
        arrived   5.0  5.1  5.2 | 5.3  5.4 | 5.5  5.6
        placed    0.0  0.1  0.2 | 0.3  0.4 | 0.5  0.6        goes on by this machine's clock, and from there by its own

    A picture can be late, but it cannot be early: where the told time runs ahead of the arrivals by more than
    `max_jump_s`, or runs back at all, or is no number, the camera's clock jumped. Pictures that come later than usual
    are no jump: they are told as they are, and what is late shows in their arrival.

    max_jump_s: how far ahead of the arrivals the told time may run, in seconds, at once or by and by: as much as a
        queue that is emptied may have held back. So a clock that runs fast jumps again and again.
    """

    # The two clocks drift apart by less than this share; what a camera gains as slowly is no jump.
    _DRIFT = 1e-3

    def __init__(self, max_jump_s: float = 1.0) -> None:
        if not (math.isfinite(max_jump_s) and max_jump_s > 0):
            raise ValueError(f"max_jump_s is a finite number of seconds above 0; got {max_jump_s}")
        self._max_jump_s = max_jump_s
        self._told_s = 0.0
        self._placed_s: float | None = None  # None before the first picture
        self._arrived_s = 0.0
        self._least_late_s = 0.0  # arrival less told time, of the picture that came soonest
        self._gained_s = 0.0  # by how much that became less since the clock jumped, drift left out
        self._shift_s = 0.0  # placed less told time
        self.num_jumps = 0

    def place(self, told_s: float, arrived_s: float) -> Placed:
        """The next picture's time. arrived_s: on a clock that only grows."""
        if self._placed_s is None:
            start_s = told_s if math.isfinite(told_s) else 0.0
            self._anchor(told_s, start_s, arrived_s)
            return Placed(start_s, False)
        waited_s = max(0.0, arrived_s - self._arrived_s)
        drift_s = self._DRIFT * waited_s
        least_s, late_s = self._least_late_s + drift_s, arrived_s - told_s
        gained_s = max(0.0, self._gained_s - drift_s) + max(0.0, least_s - late_s)
        if not math.isfinite(told_s) or told_s < self._told_s or gained_s > self._max_jump_s:
            self.num_jumps += 1
            self._anchor(told_s, self._placed_s + waited_s, arrived_s)
            return Placed(self._placed_s, True)
        self._least_late_s, self._gained_s = min(least_s, late_s), gained_s
        self._told_s, self._arrived_s = told_s, arrived_s
        self._placed_s = max(self._placed_s, told_s + self._shift_s)
        return Placed(self._placed_s, False, late_s - self._least_late_s)

    def _anchor(self, told_s: float, placed_s: float, arrived_s: float) -> None:
        told_s = told_s if math.isfinite(told_s) else self._told_s
        self._told_s, self._placed_s, self._arrived_s = told_s, placed_s, arrived_s
        self._least_late_s, self._gained_s, self._shift_s = arrived_s - told_s, 0.0, placed_s - told_s
