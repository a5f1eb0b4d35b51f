"""Patience: how long a stream may be kept waiting, over all that it hands in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Patience:
    """Waits for at most patience_s in every stretch of twice that, however many waits there are.

    Not thread-safe: its owner holds a lock.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not patience_s >= 0:
            raise ValueError(f"patience_s is 0 or more; got {patience_s}")
        self._patience_s, self._clock = patience_s, clock
        self._since_s, self._left_s = float("-inf"), 0.0

    @property
    def left_s(self) -> float:
        """Seconds that a wait may take now."""
        return self._patience_s if self._clock() - self._since_s >= 2 * self._patience_s else self._left_s

    def wait_for(self, changed: threading.Condition, holds: Callable[[], bool]) -> None:
        """Until it holds, or patience ends."""
        began_s, left_s = self._clock(), self.left_s
        if began_s - self._since_s >= 2 * self._patience_s:
            self._since_s = began_s
        changed.wait_for(holds, left_s)
        self._left_s = max(0.0, left_s - (self._clock() - began_s))
