"""Lease: whether somebody still wants what runs, by a clock that stands while nobody looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Lease:
    """Runs out when nobody has renewed it for `lease_s`. Not safe for threads.

    Time counts only as far as whoever holds it looks: between two looks at most `longest_look_s`. One who could not
    look, since the machine slept or had other things to do, cannot say either that nobody tried to renew meanwhile.
    """

    def __init__(self, lease_s: float, longest_look_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._longest_look_s, self._clock_s = lease_s, longest_look_s, clock_s
        self._looked_at_s = clock_s()
        self._waited_s = 0.0

    def renew(self) -> None:
        self._looked_at_s, self._waited_s = self._clock_s(), 0.0

    def is_over(self) -> bool:
        """Looks, and says so."""
        now_s = self._clock_s()
        self._waited_s += min(now_s - self._looked_at_s, self._longest_look_s)
        self._looked_at_s = now_s
        return self._waited_s > self._lease_s
