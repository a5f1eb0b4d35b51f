"""Outage: when something that failed may be tried again, and when to speak of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

# What comes and goes is spoken of once in so many seconds.
_QUIET_S = 60.0


class Outage:
    """Off until the first failure; then each failure doubles the wait before the next try, up to a limit.

    Not thread-safe: its owner holds a lock.

    retry_s, max_retry_s: the first wait and the longest.
    clock: gives seconds that only grow.
    """

    def __init__(
        self, retry_s: float = 0.5, max_retry_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not 0 < retry_s <= max_retry_s:
            raise ValueError(f"waits between tries are 0 < retry_s <= max_retry_s; got {retry_s} and {max_retry_s}")
        self.is_on = False
        self._first_s, self._longest_s, self._clock = retry_s, max_retry_s, clock
        self._next_s = retry_s
        self._retry_at_s = self._told_at_s = float("-inf")
        self._has_told = False

    @property
    def wait_s(self) -> float:
        """Seconds until it may be tried again; 0 or less: now."""
        return self._retry_at_s - self._clock() if self.is_on else 0.0

    def fail(self, sentence: str) -> None:
        """It failed. The first time, or the first in a while, the sentence goes to the log."""
        now_s = self._clock()
        self._retry_at_s = now_s + self._next_s
        self._next_s = min(2 * self._next_s, self._longest_s)
        if not self.is_on and now_s - self._told_at_s >= _QUIET_S:
            self._told_at_s, self._has_told = now_s, True
            _log.warning("%s; nothing is archived until that is over, the stream goes on", sentence)
        self.is_on = True

    def try_now(self) -> None:
        """The next try need not wait."""
        self._retry_at_s = float("-inf")

    def end(self, what: str) -> None:
        """It works; where the log was told that it did not, it is told that `what` is back."""
        self.is_on, self._next_s = False, self._first_s
        if self._has_told:
            self._has_told = False
            _log.info("%s is back", what)
