"""RestartLimit: how often something that keeps dying is started again."""

from __future__ import annotations

import math
from collections import deque

_WINDOW_S = 60.0
_LONGEST_S = 600.0


class RestartLimit:
    """Lets `most` starts go within a minute; after that one by one, each after twice the wait of the one before.

    A wait begins at a minute and grows to ten; a thing that lives for as long as it last waited begins anew.
    Not thread-safe.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"a thing must be started once at least; got most={most}")
        self._starts: deque[float] = deque(maxlen=most)
        self._wait_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Seconds from now until it may be started again."""
        if self._wait_s:
            return max(0.0, self._starts[-1] + self._wait_s - now_s)
        return 0.0

    def started(self, now_s: float) -> bool:
        """It is started; whether it has to wait from here on, as it was started too often."""
        last_s = self._starts[-1] if self._starts else -math.inf
        if now_s - last_s > 2 * max(self._wait_s, _WINDOW_S):
            self._wait_s = 0.0
            self._starts.clear()
        self._starts.append(now_s)
        if self._wait_s:
            self._wait_s = min(2 * self._wait_s, _LONGEST_S)
        elif len(self._starts) == self._starts.maxlen and now_s - self._starts[0] < _WINDOW_S:
            self._wait_s = _WINDOW_S
        return self._wait_s > 0
